package seqrec;

import io.grpc.Status;
import io.grpc.StatusRuntimeException;

/** Why a call has no answer. */
public final class SeqrecException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final String model;
    private final String address;
    private final Status.Code code;

    SeqrecException(String model, String address, StatusRuntimeException cause) {
        super(message(model, address, cause.getStatus()), cause);
        this.model = model;
        this.address = address;
        this.code = cause.getStatus().getCode();
    }

    /** Which model was asked. */
    public String model() {
        return model;
    }

    /** Where it was asked. */
    public String address() {
        return address;
    }

    /** The gRPC status: INVALID_ARGUMENT for a wrong row, INTERNAL for a malformed answer. */
    public Status.Code code() {
        return code;
    }

    private static String message(String model, String address, Status status) {
        // What is wrong with a connection stands in the cause alone.
        Throwable cause = status.getCause();
        boolean said = cause != null && cause.getMessage() != null;
        String why = said ? " (" + cause.getMessage() + ")" : "";
        String code = status.getCode().name();
        return model + " at " + address + ": " + code + ": " + status.getDescription() + why;
    }
}
