package seqrec.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import seqrec.Contract;
import seqrec.Contract.Tensor;
import seqrec.Datatype;

/** A model with the requests of its newest version. */
record Golden(Contract contract, List<Request> requests) {

    /** What was asked and what has to come, row by row. */
    record Request(
            String name,
            double atol,
            double rtol,
            List<Map<String, Object>> rows,
            List<Map<String, List<?>>> expected) {}

    /**
     * Every model of a repository, by name. The requests hold tensors as they go over the wire: a
     * client has nothing to lay out, unless {@code laidOut} is false.
     */
    static Map<String, Golden> readRepository(Path repository, boolean laidOut)
            throws IOException {
        Map<String, Golden> models = new TreeMap<>();
        for (Path folder : list(repository)) {
            if (Files.exists(folder.resolve("contract.json"))) {
                models.put(folder.getFileName().toString(), readModel(folder, laidOut));
            }
        }
        return models;
    }

    private static Golden readModel(Path folder, boolean laidOut) throws IOException {
        Contract read = Contract.parse(Files.readString(folder.resolve("contract.json")));
        List<Tensor> inputs = read.inputs().stream()
                .map(input -> new Tensor(input.name(), input.datatype(), input.size()))
                .toList();
        Contract contract = laidOut
                ? new Contract(read.model(), read.maxBatchSize(), inputs, read.outputs())
                : read;
        int newest = list(folder).stream()
                .map(path -> path.getFileName().toString())
                .filter(name -> name.matches("\\d+"))
                .mapToInt(Integer::parseInt)
                .max()
                .orElseThrow();
        Path file = folder.resolve(Integer.toString(newest)).resolve("golden.json");
        JsonArray entries = JsonParser.parseString(Files.readString(file))
                .getAsJsonObject()
                .getAsJsonArray("requests");
        List<Request> requests = new ArrayList<>();
        for (int i = 0; i < entries.size(); i++) {
            requests.add(request(contract, i, entries.get(i).getAsJsonObject()));
        }
        return new Golden(contract, requests);
    }

    private static Request request(Contract contract, int number, JsonObject entry) {
        List<Map<String, Object>> given = new ArrayList<>();
        for (var lists : rows(contract.inputs(), entry.getAsJsonObject("inputs"))) {
            Map<String, Object> row = new HashMap<>();
            for (Tensor input : contract.inputs()) {
                List<?> list = lists.get(input.name());
                row.put(input.name(), input.size() == 1 ? list.get(0) : list);
            }
            given.add(row);
        }
        String what = entry.get("case").getAsString();
        return new Request(
                contract.model() + ", request " + number + " (" + what + ")",
                entry.get("atol").getAsDouble(),
                entry.get("rtol").getAsDouble(),
                given,
                rows(contract.outputs(), entry.getAsJsonObject("outputs")));
    }

    private static List<Map<String, List<?>>> rows(List<Tensor> tensors, JsonObject entry) {
        List<Map<String, List<?>>> rows = new ArrayList<>();
        for (Tensor tensor : tensors) {
            JsonObject value = entry.getAsJsonObject(tensor.name());
            JsonArray shape = value.getAsJsonArray("shape");
            int width = shape.get(1).getAsInt();
            List<?> data = values(tensor.datatype(), value.getAsJsonArray("data"));
            for (int row = 0; row < shape.get(0).getAsInt(); row++) {
                if (row == rows.size()) {
                    rows.add(new HashMap<>());
                }
                rows.get(row).put(tensor.name(), data.subList(row * width, (row + 1) * width));
            }
        }
        return rows;
    }

    /** JSON's values as a client gives them; "NaN" and "Infinity" are strings there. */
    private static List<?> values(Datatype datatype, JsonArray data) {
        Stream<String> texts =
                StreamSupport.stream(data.spliterator(), false).map(value -> value.getAsString());
        return switch (datatype) {
            case BYTES -> texts.toList();
            case FP32 -> texts.map(Float::valueOf).toList();
            case INT32 -> texts.map(Integer::valueOf).toList();
        };
    }

    private static List<Path> list(Path folder) throws IOException {
        try (Stream<Path> found = Files.list(folder)) {
            return found.toList();
        }
    }
}
