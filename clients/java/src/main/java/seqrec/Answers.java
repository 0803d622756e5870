package seqrec;

import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import seqrec.Recommendation.Item;

/** A row's outputs as what its caller asked for. */
final class Answers {
    private Answers() {}

    static Recommendation recommendation(Map<String, List<?>> outputs, int k) {
        List<?> ids = values(outputs, "item_ids");
        List<?> known = values(outputs, "known_items");
        float[] scores = floats(outputs, "scores");
        if (ids.size() != scores.length || known.size() != 1) {
            String description = "the answer's outputs do not fit together";
            throw Status.INTERNAL.withDescription(description).asRuntimeException();
        }
        List<Item> items = new ArrayList<>();
        for (int i = 0; i < scores.length && i < k; i++) {
            if (ids.get(i) instanceof String id && !id.isEmpty()) {
                items.add(new Item(id, scores[i]));
            }
        }
        return new Recommendation(List.copyOf(items), (Integer) known.get(0));
    }

    static float[] floats(Map<String, List<?>> outputs, String name) {
        List<?> values = values(outputs, name);
        float[] floats = new float[values.size()];
        for (int i = 0; i < floats.length; i++) {
            floats[i] = (Float) values.get(i);
        }
        return floats;
    }

    private static List<?> values(Map<String, List<?>> outputs, String name) {
        List<?> found = outputs.get(name);
        if (found == null) {
            String description = "the model gives no " + name;
            throw Status.INVALID_ARGUMENT.withDescription(description).asRuntimeException();
        }
        return found;
    }
}
