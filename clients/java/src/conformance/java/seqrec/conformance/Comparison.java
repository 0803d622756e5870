package seqrec.conformance;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import seqrec.Client;
import seqrec.Contract;
import seqrec.Contract.Tensor;
import seqrec.Recommendation.Item;
import seqrec.conformance.Golden.Request;

/** What differs between the golden answers and the server's. */
final class Comparison {
    private Comparison() {}

    /** One request, every output of it. */
    static List<String> replay(Client client, Contract contract, Request request) {
        return compare(request, request.expected(), client.call(contract, request.rows()));
    }

    /** Rows of every length in one call, through the method that the model is for. */
    static List<String> allRows(Client client, Golden golden) {
        return compareAll(golden, ask(client, golden.contract(), rows(golden)));
    }

    /** The same for a model that no method is for. */
    static List<String> allCalled(Client client, Golden golden) {
        return compareAll(golden, client.call(golden.contract(), rows(golden)));
    }

    private static List<Map<String, Object>> rows(Golden golden) {
        return golden.requests().stream().flatMap(request -> request.rows().stream()).toList();
    }

    private static List<String> compareAll(Golden golden, List<Map<String, List<?>>> answers) {
        List<String> found = new ArrayList<>();
        int start = 0;
        for (Request request : golden.requests()) {
            List<Map<String, List<?>>> expected =
                    request.expected().stream().map(Comparison::withoutEmptyIds).toList();
            int end = start + expected.size();
            compare(request, expected, answers.subList(start, end))
                    .forEach(difference -> found.add(request.name() + ": " + difference));
            start = end;
        }
        return found;
    }

    private static List<Map<String, List<?>>> ask(
            Client client, Contract contract, List<Map<String, Object>> rows) {
        List<String> gives = contract.outputs().stream().map(Tensor::name).toList();
        List<Map<String, List<?>>> answers = new ArrayList<>();
        if (gives.contains("item_ids")) {
            client.recommend(contract, rows, Integer.MAX_VALUE)
                    .forEach(answer -> answers.add(Map.of(
                            "item_ids", answer.items().stream().map(Item::id).toList(),
                            "scores", answer.items().stream().map(Item::score).toList(),
                            "known_items", List.of(answer.knownItems()))));
        } else if (gives.contains("scores")) {
            client.score(contract, rows)
                    .forEach(scores -> answers.add(Map.of("scores", boxed(scores))));
        } else {
            String embedding = gives.stream()
                    .filter(name -> name.endsWith("_embedding"))
                    .findFirst()
                    .orElseThrow();
            client.encode(contract, rows)
                    .forEach(vector -> answers.add(Map.of(embedding, boxed(vector))));
        }
        return answers;
    }

    private static List<Float> boxed(float[] values) {
        List<Float> list = new ArrayList<>();
        for (float value : values) {
            list.add(value);
        }
        return list;
    }

    private static Map<String, List<?>> withoutEmptyIds(Map<String, List<?>> outputs) {
        Map<String, List<?>> kept = new HashMap<>(outputs);
        kept.computeIfPresent(
                "item_ids", (name, ids) -> ids.stream().filter(id -> !id.equals("")).toList());
        if (kept.containsKey("item_ids")) {
            kept.computeIfPresent(
                    "scores", (name, scores) -> scores.subList(0, kept.get("item_ids").size()));
        }
        return kept;
    }

    private static List<String> compare(
            Request request,
            List<Map<String, List<?>>> expected,
            List<Map<String, List<?>>> answers) {
        List<String> found = new ArrayList<>();
        for (int row = 0; row < expected.size(); row++) {
            Map<String, List<?>> wanted = expected.get(row);
            Map<String, List<?>> actual = answers.get(row);
            for (String name : actual.keySet()) {
                String where = "row " + row + ": " + name;
                int size = wanted.get(name).size();
                if (actual.get(name).size() != size) {
                    int has = actual.get(name).size();
                    found.add(where + " has " + has + " values, " + size + " in the file");
                    continue;
                }
                for (int i = 0; i < size; i++) {
                    if (!same(request, wanted, actual, name, i)) {
                        Object value = actual.get(name).get(i);
                        Object due = wanted.get(name).get(i);
                        found.add(where + "[" + i + "] is " + value + ", " + due + " in the file");
                    }
                }
            }
        }
        return found;
    }

    private static boolean same(
            Request request,
            Map<String, List<?>> wanted,
            Map<String, List<?>> actual,
            String name,
            int i) {
        Object value = actual.get(name).get(i);
        Object due = wanted.get(name).get(i);
        if (value.equals(due)) {
            return true;
        }
        return switch (name) {
            case "known_items" -> false;
            case "item_ids" -> {
                int place = wanted.get(name).indexOf(value);
                List<?> scores = wanted.get("scores");
                // One that the file has not can only have changed places with its last.
                Object last = scores.get(scores.size() - 1);
                yield place >= 0
                        ? within(request, scores.get(place), scores.get(i))
                        : within(request, actual.get("scores").get(i), last);
            }
            default -> within(request, value, due);
        };
    }

    private static boolean within(Request request, Object value, Object due) {
        double wanted = ((Number) due).doubleValue();
        double off = Math.abs(((Number) value).doubleValue() - wanted);
        return off <= request.atol() + request.rtol() * Math.abs(wanted);
    }
}
