package seqrec;

import java.util.List;

/**
 * The items for one row.
 *
 * @param items best first
 * @param knownItems how much of the row the model knew; 0: the items are the cold start
 */
public record Recommendation(List<Item> items, int knownItems) {

    /** An item of the catalogue; a higher score is better. */
    public record Item(String id, float score) {}
}
