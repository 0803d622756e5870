package seqrec;

import com.google.protobuf.ByteString;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import seqrec.inference.InferTensorContents;

/** How values are checked, written and read. */
public enum Datatype {
    BYTES("text that has UTF-8", ByteString.EMPTY) {
        @Override
        Object accept(Object value) {
            if (!(value instanceof String text)) {
                return null;
            }
            try {
                // String.getBytes would make a question mark of a lone surrogate.
                CharBuffer chars = CharBuffer.wrap(text);
                return ByteString.copyFrom(StandardCharsets.UTF_8.newEncoder().encode(chars));
            } catch (CharacterCodingException e) {
                return null;
            }
        }

        @Override
        void write(Object value, InferTensorContents.Builder to) {
            to.addBytesContents((ByteString) value);
        }

        @Override
        Object read(ByteBuffer raw) throws CharacterCodingException {
            int length = raw.getInt();
            if (length < 0 || length > raw.remaining()) {
                throw new BufferUnderflowException();
            }
            ByteBuffer text = raw.slice(raw.position(), length);
            raw.position(raw.position() + length);
            return StandardCharsets.UTF_8.newDecoder().decode(text).toString();
        }
    },

    FP32("numbers that FP32 can hold", Float.NaN) {
        @Override
        Object accept(Object value) {
            if (!(value instanceof Number number)) {
                return null;
            }
            float single = number.floatValue();
            // A BigDecimal may overflow even the double.
            boolean infinite = (number instanceof Float || number instanceof Double)
                    && Double.isInfinite(number.doubleValue());
            return Float.isInfinite(single) && !infinite ? null : single;
        }

        @Override
        void write(Object value, InferTensorContents.Builder to) {
            to.addFp32Contents((Float) value);
        }

        @Override
        Object read(ByteBuffer raw) {
            return raw.getFloat();
        }
    },

    INT32("whole numbers that INT32 can hold", 0) {
        @Override
        Object accept(Object value) {
            boolean whole = value instanceof Number n && n.intValue() == n.doubleValue();
            return whole ? ((Number) value).intValue() : null;
        }

        @Override
        void write(Object value, InferTensorContents.Builder to) {
            to.addIntContents((Integer) value);
        }

        @Override
        Object read(ByteBuffer raw) {
            return raw.getInt();
        }
    };

    /** What {@link #accept} takes, in words. */
    final String expected;

    /** Stands for a value that the caller does not have. */
    final Object unknown;

    Datatype(String expected, Object unknown) {
        this.expected = expected;
        this.unknown = unknown;
    }

    /** The value as {@link #write} takes it, or null if this cannot hold it. */
    abstract Object accept(Object value);

    abstract void write(Object value, InferTensorContents.Builder to);

    /** The next value of a raw answer. */
    abstract Object read(ByteBuffer raw) throws CharacterCodingException;
}
