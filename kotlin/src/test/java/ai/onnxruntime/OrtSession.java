package ai.onnxruntime;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.util.Map;
import java.util.Set;

/** Sends every run to the test, where ONNX Runtime computes it, over a connection of this machine. */
public final class OrtSession implements AutoCloseable {
    public static DataInputStream from;
    public static DataOutputStream to;

    private final String path;

    OrtSession(String path) {
        this.path = path;
        OnnxTensor.open++;
    }

    public Result run(Map<String, OnnxTensor> inputs, Set<String> outputs) throws OrtException {
        try {
            to.writeUTF(path);
            to.writeUTF(outputs.iterator().next());
            to.writeInt(inputs.size());
            for (Map.Entry<String, OnnxTensor> input : inputs.entrySet()) {
                OnnxTensor tensor = input.getValue();
                to.writeUTF(input.getKey());
                to.writeBoolean(tensor.floats == null);
                to.writeInt(tensor.shape.length);
                for (long side : tensor.shape) {
                    to.writeLong(side);
                }
                for (int n = 0; n < (tensor.floats == null ? tensor.longs.length : tensor.floats.length); n++) {
                    if (tensor.floats == null) {
                        to.writeLong(tensor.longs[n]);
                    } else {
                        to.writeFloat(tensor.floats[n]);
                    }
                }
            }
            to.flush();
            long[] shape = new long[from.readInt()];
            int count = 1;
            for (int n = 0; n < shape.length; n++) {
                shape[n] = from.readLong();
                count *= (int) shape[n];
            }
            float[] values = new float[count];
            for (int n = 0; n < count; n++) {
                values[n] = from.readFloat();
            }
            return new Result(new OnnxTensor(values, null, shape));
        } catch (IOException error) {
            throw new OrtException(error.toString());
        }
    }

    public void close() {
        OnnxTensor.open--;
    }

    public static final class Result implements AutoCloseable {
        private final OnnxTensor tensor;

        Result(OnnxTensor tensor) {
            this.tensor = tensor;
        }

        public OnnxValue get(int index) {
            return tensor;
        }

        public void close() {
            tensor.close();
        }
    }

    public static final class SessionOptions implements AutoCloseable {
        public enum OptLevel { NO_OPT, BASIC_OPT, EXTENDED_OPT, ALL_OPT }

        public SessionOptions() {
            OnnxTensor.open++;
        }

        public void setIntraOpNumThreads(int threads) throws OrtException {}

        public void setInterOpNumThreads(int threads) throws OrtException {}

        public void setOptimizationLevel(OptLevel level) throws OrtException {}

        public void close() {
            OnnxTensor.open--;
        }
    }
}
