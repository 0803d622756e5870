package seqrec;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import seqrec.Contract.Tensor;

/**
 * What may come back; all of it holds together, for every row of a call.
 *
 * <p>A list of what is allowed must have a value: the server would take an empty one for no filter.
 */
public final class Filters {
    private static final String EXCLUDE = "exclude_item_ids";
    private static final String ALLOW = "allow_item_ids";
    private static final String KEEP_SEEN = "keep_seen";
    private static final String QUERY = "query_item_ids";
    private static final String WHERE = "allow_"; // before an attribute's name

    private final Map<String, Object> values = new LinkedHashMap<>();

    /** A contract to ask, and the rows to ask it with. */
    record Asked(Contract contract, List<? extends Map<String, ?>> rows) {}

    /** These never come back. */
    public Filters exclude(List<String> ids) {
        values.remove(EXCLUDE);
        if (ids != null && !ids.isEmpty()) {
            values.put(EXCLUDE, ids);
        }
        return this;
    }

    /** Only these may come back. */
    public Filters allow(List<String> ids) {
        values.put(ALLOW, ids);
        return this;
    }

    /** Only items with one of these values of an attribute may come back. */
    public Filters where(String attribute, List<String> wanted) {
        values.put(WHERE + attribute, wanted);
        return this;
    }

    /** Whether what the history holds may come back. */
    public Filters keepSeen(boolean keep) {
        values.remove(KEEP_SEEN);
        if (keep) {
            values.put(KEEP_SEEN, 1);
        }
        return this;
    }

    /** The contract itself if nothing filters, else its {@code filtered}. */
    Asked narrowed(Contract contract, List<? extends Map<String, ?>> rows) {
        if (values.isEmpty()) {
            return new Asked(contract, rows);
        }
        if (contract.filtered() == null) {
            throw refused(contract.model() + " has no filters");
        }
        List<String> own = contract.inputs().stream().map(Tensor::name).toList();
        return new Asked(contract.filtered(), added(contract.filtered(), own, rows));
    }

    /** The contract's {@code similarItems}, asked for what is near to each list of ids. */
    Asked similar(Contract contract, List<List<String>> ids) {
        Contract asked = contract.similarItems();
        if (asked == null) {
            throw refused(contract.model() + " has no similar items");
        }
        List<Map<String, Object>> rows = new ArrayList<>();
        for (List<String> list : ids) {
            Map<String, Object> row = new HashMap<>();
            row.put(QUERY, list);
            rows.add(row);
        }
        return new Asked(asked, added(asked, List.of(QUERY), rows));
    }

    private List<Map<String, Object>> added(
            Contract asked, List<String> own, List<? extends Map<String, ?>> rows) {
        List<String> taken = asked.inputs().stream()
                .map(Tensor::name)
                .filter(name -> !own.contains(name))
                .toList();
        for (Map.Entry<String, Object> given : values.entrySet()) {
            String name = given.getKey();
            if (!taken.contains(name)) {
                String takes = String.join(", ", taken.stream().map(Filters::said).toList());
                throw refused(
                        asked.model() + " does not filter by " + said(name) + "; it takes " + takes);
            }
            if (name.startsWith(WHERE) && isEmpty((List<?>) given.getValue())) {
                throw refused(said(name) + " has a list without a value, which the server would take"
                        + " for no filter; leave it out if everything is allowed, and do not ask if"
                        + " nothing is");
            }
        }
        List<Map<String, Object>> both = new ArrayList<>();
        for (Map<String, ?> row : rows) {
            Map<String, Object> made = new HashMap<>(row);
            made.putAll(values);
            both.add(made);
        }
        return both;
    }

    /** Whether there is no value, or nothing but padding; the server cuts a value at NUL. */
    private static boolean isEmpty(List<?> given) {
        return given == null
                || given.stream().allMatch(value -> value instanceof String text
                        && (text.isEmpty() || text.charAt(0) == 0));
    }

    /** An input as the method that gives it. */
    private static String said(String name) {
        return switch (name) {
            case EXCLUDE -> "exclude";
            case ALLOW -> "allow";
            case KEEP_SEEN -> "keepSeen";
            default -> "where " + name.substring(WHERE.length());
        };
    }

    private static StatusRuntimeException refused(String problem) {
        return Status.INVALID_ARGUMENT.withDescription(problem).asRuntimeException();
    }
}
