package seqrec;

import com.google.protobuf.ByteString;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import seqrec.Contract.Tensor;
import seqrec.inference.InferTensorContents;
import seqrec.inference.ModelInferRequest;
import seqrec.inference.ModelInferResponse;

/** Rows as the tensors of a request, and the tensors of an answer as rows. */
final class Framing {
    /** An output of any length has a value for each of these. */
    private static final String CANDIDATES = "candidate_ids";

    private static final int SHOWN_LENGTH = 80;

    private Framing() {}

    /** The rows as lists of what goes to the wire, one for each input of the model. */
    static List<Map<String, List<Object>>> check(
            Contract contract, List<? extends Map<String, ?>> rows) {
        List<String> names = contract.inputs().stream().map(Tensor::name).toList();
        List<Map<String, List<Object>>> checked = new ArrayList<>();
        for (Map<String, ?> row : rows) {
            int number = checked.size();
            for (String name : row.keySet()) {
                if (!names.contains(name)) {
                    String taken = String.join(", ", names);
                    throw refused(number, name, "is no input; the model takes " + taken);
                }
            }
            Map<String, List<Object>> lists = new HashMap<>();
            for (Tensor input : contract.inputs()) {
                lists.put(input.name(), values(input, row.get(input.name()), number));
            }
            for (Tensor input : contract.inputs()) {
                if (!input.alignedWith().isEmpty()) {
                    lists.put(input.name(), laidOut(input, lists));
                }
            }
            checked.add(lists);
        }
        return checked;
    }

    /**
     * A list that follows a history as it goes over the wire: the value at place size - j belongs
     * to the history's j-th last event, and is unknown if there is none.
     */
    private static List<Object> laidOut(Tensor input, Map<String, List<Object>> lists) {
        List<Object> given = lists.get(input.name());
        List<Object> history = lists.getOrDefault(input.alignedWith(), List.of());
        Object[] laid = new Object[input.size()];
        Arrays.fill(laid, input.datatype().unknown);
        int place = laid.length;
        for (int i = history.size() - 1; i >= 0 && place > 0; i--) {
            ByteString id = (ByteString) history.get(i);
            // An empty id is padding. The server cuts an id at NUL, which may leave an empty one.
            if (!id.isEmpty() && id.byteAt(0) != 0) {
                place--;
                if (i < given.size()) {
                    laid[place] = given.get(i);
                }
            }
        }
        return Arrays.asList(laid);
    }

    private static List<Object> values(Tensor input, Object value, int row) {
        if (value == null) {
            return List.of();
        }
        boolean single = input.single();
        boolean anyLength = input.size() == Tensor.ANY || !input.alignedWith().isEmpty();
        List<?> given = asList(value);
        if (single != (given == null)) {
            String expected = single ? "one value" : "a list";
            throw refused(row, input.name(), "takes " + expected + ", found " + shown(value));
        }
        if (single) {
            given = List.of(value);
        } else if (!anyLength && !given.isEmpty() && given.size() != input.size()) {
            String problem = "takes " + input.size() + " values, found " + given.size();
            throw refused(row, input.name(), problem);
        }
        List<Object> accepted = new ArrayList<>(given.size());
        for (Object item : given) {
            Object wire = input.datatype().accept(item);
            if (wire == null) {
                String problem = "takes " + input.datatype().expected + ", found " + shown(item);
                throw refused(row, input.name(), problem);
            }
            accepted.add(wire);
        }
        return accepted;
    }

    /** The value's items, or null if it is no list. */
    private static List<?> asList(Object value) {
        if (value instanceof float[] floats) {
            return IntStream.range(0, floats.length).mapToObj(i -> floats[i]).toList();
        }
        return value instanceof List<?> list ? list : null;
    }

    private static StatusRuntimeException refused(int row, String input, String problem) {
        String description = "row " + row + ", " + input + ": " + problem;
        return Status.INVALID_ARGUMENT.withDescription(description).asRuntimeException();
    }

    private static String shown(Object value) {
        String text = value instanceof String string ? '"' + string + '"' : String.valueOf(value);
        return text.length() <= SHOWN_LENGTH ? text : text.substring(0, SHOWN_LENGTH) + "...";
    }

    /** One request; lists are padded to the longest. */
    static ModelInferRequest pack(Contract contract, List<Map<String, List<Object>>> rows) {
        ModelInferRequest.Builder request =
                ModelInferRequest.newBuilder().setModelName(contract.model());
        for (Tensor input : contract.inputs()) {
            List<List<Object>> lists = rows.stream().map(row -> row.get(input.name())).toList();
            int width = input.size();
            if (width == Tensor.ANY) {
                width = lists.stream().mapToInt(List::size).max().orElse(0);
            }
            InferTensorContents.Builder contents = InferTensorContents.newBuilder();
            for (List<Object> list : lists) {
                Stream<Object> padding = Stream.generate(() -> input.datatype().unknown);
                Stream.concat(list.stream(), padding)
                        .limit(width)
                        .forEach(value -> input.datatype().write(value, contents));
            }
            request.addInputsBuilder()
                    .setName(input.name())
                    .setDatatype(input.datatype().name())
                    .addShape(rows.size())
                    .addShape(width)
                    .setContents(contents);
        }
        return request.build();
    }

    /** Each row's outputs, without what {@link #pack} added. */
    static List<Map<String, List<?>>> unpack(
            Contract contract, List<Map<String, List<Object>>> rows, ModelInferResponse answer) {
        List<Map<String, List<?>>> results = new ArrayList<>();
        rows.forEach(row -> results.add(new HashMap<>()));
        for (Tensor output : contract.outputs()) {
            int at = find(output, answer, rows.size());
            long width = answer.getOutputs(at).getShape(1);
            ByteBuffer raw = answer.getRawOutputContents(at).asReadOnlyByteBuffer();
            raw.order(ByteOrder.LITTLE_ENDIAN);
            for (int i = 0; i < rows.size(); i++) {
                boolean fixed = output.size() != Tensor.ANY;
                long due = fixed ? width : rows.get(i).get(CANDIDATES).size();
                if (due > width) {
                    throw malformed(output, width + " values a row, " + due + " are due");
                }
                results.get(i).put(output.name(), read(output, raw, width).subList(0, (int) due));
            }
            if (raw.hasRemaining()) {
                throw malformed(output, raw.remaining() + " bytes too many");
            }
        }
        return results;
    }

    private static List<?> read(Tensor output, ByteBuffer raw, long width) {
        List<Object> values = new ArrayList<>();
        try {
            while (values.size() < width) {
                values.add(output.datatype().read(raw));
            }
        } catch (BufferUnderflowException e) {
            throw malformed(output, "values that end too early");
        } catch (CharacterCodingException e) {
            throw malformed(output, "text that is no UTF-8");
        }
        return values;
    }

    private static int find(Tensor output, ModelInferResponse answer, int rows) {
        for (int at = 0; at < answer.getOutputsCount(); at++) {
            ModelInferResponse.InferOutputTensor head = answer.getOutputs(at);
            if (head.getName().equals(output.name()) && at < answer.getRawOutputContentsCount()) {
                boolean fits = head.getShapeCount() == 2 && head.getShape(0) == rows;
                if (!fits || !head.getDatatype().equals(output.datatype().name())) {
                    String found = head.getDatatype() + " " + head.getShapeList();
                    String due = output.datatype() + " [" + rows + ", ...]";
                    throw malformed(output, found + ", " + due + " is due");
                }
                return at;
            }
        }
        throw malformed(output, "nothing");
    }

    private static StatusRuntimeException malformed(Tensor output, String found) {
        String description = "the answer has for " + output.name() + " " + found;
        return Status.INTERNAL.withDescription(description).asRuntimeException();
    }
}
