package seqrec.conformance;

import io.grpc.Status.Code;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import seqrec.Client;
import seqrec.Contract;
import seqrec.Contract.Tensor;
import seqrec.Filters;
import seqrec.Recommendation;
import seqrec.Recommendation.Item;
import seqrec.SeqrecException;

/** What filters and similar items have to do; each case gives what they did not. */
final class FilterCases {
    private static final String HISTORY = "history_item_ids";

    private final Client client;
    private final Contract plain;
    private final Contract sasrec;
    private final List<String> attributes;
    private final String flaky;

    private FilterCases(Client client, Contract plain, Contract sasrec, String flaky) {
        this.client = client;
        this.plain = plain;
        this.sasrec = sasrec;
        this.flaky = flaky;
        this.attributes = sasrec.filtered().inputs().stream()
                .map(Tensor::name)
                .filter(name -> name.startsWith("allow_") && !name.equals("allow_item_ids"))
                .map(name -> name.substring("allow_".length()))
                .toList();
    }

    /** The cases by name; none if the repository has no graphs with filters. */
    static Map<String, Callable<List<String>>> all(
            Client client, Map<String, Golden> models, String flaky) {
        Map<String, Callable<List<String>>> cases = new LinkedHashMap<>();
        if (!models.keySet().containsAll(List.of("sasrec_filtered", "sasrec_similar_items"))) {
            return cases;
        }
        Contract plain = models.get("sasrec").contract();
        Contract filtered = models.get("sasrec_filtered").contract();
        Contract similar = models.get("sasrec_similar_items").contract();
        FilterCases found = new FilterCases(client, plain, with(plain, filtered, similar), flaky);
        cases.put("filters", found::filters);
        cases.put("similar items", found::similarItems);
        cases.put("empty filter", found::emptyFilter);
        if (flaky != null) {
            cases.put("no filter", found::noFilter);
        }
        return cases;
    }

    private List<String> filters() {
        List<String> popular = ids(List.of(), new Filters());
        String first = popular.get(0);
        String second = popular.get(1);
        List<String> two = List.of(first, second);
        List<String> others = popular.subList(1, popular.size());
        List<String> without = ids(List.of(), new Filters().exclude(List.of(first)));
        List<String> wrong = new ArrayList<>();
        wrong.addAll(due("exclude", without.subList(0, others.size()), others));
        wrong.addAll(due("seen", ids(List.of(first), new Filters().allow(two)), List.of(second)));
        Filters both = new Filters().allow(two).exclude(List.of(first));
        wrong.addAll(due("both", ids(List.of(), both), List.of(second)));
        List<String> kept = ids(List.of(first), new Filters().allow(two).keepSeen(true));
        if (kept.size() != 2 || !Set.copyOf(kept).equals(Set.copyOf(two))) {
            wrong.add("keepSeen: " + kept);
        }
        Filters unknown = new Filters().allow(List.of("no such item"));
        wrong.addAll(due("unknown items", ids(List.of(), unknown), List.of()));
        for (String attribute : attributes) {
            Filters where = new Filters().where(attribute, List.of("no such value"));
            wrong.addAll(due("unknown " + attribute, ids(List.of(), where), List.of()));
        }
        return wrong;
    }

    private List<String> similarItems() {
        List<String> two = ids(List.of(), new Filters()).subList(0, 2);
        List<String> found = nearest(two, new Filters());
        Set<String> others = new HashSet<>(found);
        others.removeAll(two);
        List<String> wrong = new ArrayList<>();
        if (others.size() != 3) {
            wrong.add("not three others: " + found);
        }
        List<String> allowed = nearest(two.subList(0, 1), new Filters().allow(two));
        wrong.addAll(due("allow", allowed, two.subList(1, 2)));
        return wrong;
    }

    /** What must be refused before anything is sent: nothing listens there. */
    private List<String> emptyFilter() {
        List<String> wrong = new ArrayList<>();
        try (Client nowhere = Client.builder("127.0.0.1:1").build()) {
            Map<Filters, String> filters = new LinkedHashMap<>();
            filters.put(new Filters().allow(List.of()), "allow");
            filters.put(new Filters().allow(null), "allow");
            filters.put(new Filters().allow(List.of("", "\0")), "allow");
            filters.put(new Filters().where("no_such", List.of("a")), "where no_such");
            for (String attribute : attributes) {
                filters.put(new Filters().where(attribute, List.of()), "where " + attribute);
            }
            filters.forEach((each, said) -> {
                wrong.addAll(refused(said, () -> nowhere.recommend(sasrec, List.of(), 1, each)));
                wrong.addAll(refused(said, () -> nowhere.similar(sasrec, List.of(), 1, each)));
            });
            Filters some = new Filters().exclude(List.of("a"));
            wrong.addAll(
                    refused("no filters", () -> nowhere.recommend(plain, List.of(), 1, some)));
            Filters seen = new Filters().keepSeen(true);
            wrong.addAll(refused("keepSeen", () -> nowhere.similar(sasrec, List.of(), 1, seen)));
        }
        return wrong;
    }

    /** The plain model is asked twice, and the other once: the server counts. */
    private List<String> noFilter() {
        Contract filtered = named("choice_filtered", sasrec.filtered());
        Contract choice = with(named("choice", plain), filtered, null);
        List<Map<String, ?>> rows = List.of(Map.of(HISTORY, List.of("a")));
        try (Client counted = Client.builder(flaky).build()) {
            counted.recommend(choice, rows, 1);
            counted.recommend(choice, rows, 1, new Filters().exclude(List.of()).keepSeen(false));
            counted.recommend(choice, rows, 1, new Filters().exclude(List.of("a")));
        }
        return List.of();
    }

    private List<String> ids(List<String> history, Filters filters) {
        return ids(client.recommend(sasrec, List.of(Map.of(HISTORY, history)), 9, filters));
    }

    private List<String> nearest(List<String> query, Filters filters) {
        return ids(client.similar(sasrec, List.of(query), 3, filters));
    }

    private static List<String> ids(List<Recommendation> answers) {
        return answers.get(0).items().stream().map(Item::id).toList();
    }

    private static List<String> due(String what, List<String> found, List<String> expected) {
        boolean same = found.equals(expected);
        return same ? List.of() : List.of(what + ": " + found + " instead of " + expected);
    }

    private static List<String> refused(String said, Callable<?> call) {
        try {
            return List.of(said + " is due to be refused, found " + call.call());
        } catch (SeqrecException e) {
            boolean right = e.code() == Code.INVALID_ARGUMENT && e.getMessage().contains(said);
            return right ? List.of() : List.of(said + ": " + e.getMessage());
        } catch (Exception e) {
            return List.of(said + ": " + e);
        }
    }

    private static Contract named(String model, Contract like) {
        return new Contract(model, like.maxBatchSize(), like.inputs(), like.outputs());
    }

    private static Contract with(Contract plain, Contract filtered, Contract similar) {
        return new Contract(
                plain.model(),
                plain.maxBatchSize(),
                plain.inputs(),
                plain.outputs(),
                filtered,
                similar);
    }
}
