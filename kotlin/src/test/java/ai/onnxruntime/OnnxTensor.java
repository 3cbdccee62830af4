package ai.onnxruntime;

import java.nio.FloatBuffer;
import java.nio.LongBuffer;

public final class OnnxTensor implements OnnxValue {
    /** Tensors and results that were made and not closed. */
    public static int open;

    final float[] floats;
    final long[] longs;
    final long[] shape;
    private boolean closed;

    OnnxTensor(float[] floats, long[] longs, long[] shape) throws OrtException {
        long count = 1;
        for (long side : shape) {
            count *= side;
        }
        if (count == 0 || count != (floats == null ? longs.length : floats.length)) {
            throw new OrtException("a tensor does not fit its shape, or is empty");
        }
        this.floats = floats;
        this.longs = longs;
        this.shape = shape;
        open++;
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, FloatBuffer data, long[] shape) throws OrtException {
        float[] values = new float[data.remaining()];
        data.get(values);
        return new OnnxTensor(values, null, shape);
    }

    public static OnnxTensor createTensor(OrtEnvironment environment, LongBuffer data, long[] shape) throws OrtException {
        long[] values = new long[data.remaining()];
        data.get(values);
        return new OnnxTensor(null, values, shape);
    }

    public TensorInfo getInfo() {
        return new TensorInfo(shape);
    }

    public FloatBuffer getFloatBuffer() {
        if (closed) {
            throw new IllegalStateException("a closed tensor is read");
        }
        return FloatBuffer.wrap(floats.clone());
    }

    public void close() {
        if (closed) {
            throw new IllegalStateException("a tensor is closed twice");
        }
        closed = true;
        open--;
    }
}
