package seqrec;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import java.util.List;
import java.util.stream.StreamSupport;

/**
 * What a model takes and gives.
 *
 * @param maxBatchSize how many rows the server takes in one request
 * @param filtered what is asked instead if a call has filters, or null
 * @param similarItems what is asked for similar items, or null
 */
public record Contract(
        String model,
        int maxBatchSize,
        List<Tensor> inputs,
        List<Tensor> outputs,
        Contract filtered,
        Contract similarItems) {

    /** That of a model without filters and similar items. */
    public Contract(String model, int maxBatchSize, List<Tensor> inputs, List<Tensor> outputs) {
        this(model, maxBatchSize, inputs, outputs, null, null);
    }

    /**
     * An input or output of a model.
     *
     * @param size how many values a row has, or {@link #ANY}
     * @param alignedWith the history that an input follows, or the empty string. A row has a list
     *     of any length then, parallel to the history; on the wire it is laid out in {@code size}
     *     values, so that the last one belongs to the history's last event that is no padding. For
     *     lists that are laid out already, leave it out.
     */
    public record Tensor(String name, Datatype datatype, int size, String alignedWith) {
        /** The size of a list of any length. */
        public static final int ANY = -1;

        public Tensor(String name, Datatype datatype, int size) {
            this(name, datatype, size, "");
        }

        /** Whether a row has one value and no list. */
        boolean single() {
            return size == 1 && alignedWith.isEmpty();
        }

        private static Tensor of(JsonObject entry) {
            JsonPrimitive size = entry.getAsJsonArray("shape").get(1).getAsJsonPrimitive();
            return new Tensor(
                    entry.get("name").getAsString(),
                    Datatype.valueOf(entry.get("datatype").getAsString()),
                    size.isNumber() ? size.getAsInt() : ANY,
                    entry.has("aligned_with") ? entry.get("aligned_with").getAsString() : "");
        }
    }

    /** The contract in the text of a {@code contract.json}. */
    public static Contract parse(String json) {
        JsonObject contract = JsonParser.parseString(json).getAsJsonObject();
        return new Contract(
                contract.get("model").getAsString(),
                contract.get("max_batch_size").getAsInt(),
                tensors(contract.getAsJsonArray("inputs")),
                tensors(contract.getAsJsonArray("outputs")));
    }

    private static List<Tensor> tensors(JsonArray entries) {
        return StreamSupport.stream(entries.spliterator(), false)
                .map(entry -> Tensor.of(entry.getAsJsonObject()))
                .toList();
    }
}
