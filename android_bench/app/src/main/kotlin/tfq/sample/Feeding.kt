package tfq.sample

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Element types of a model's inputs and outputs, with the least and the largest integer. */
enum class Kind(val bytes: Int, val low: Int, val high: Int) {
    FLOAT32(4, 0, 0),
    INT8(1, -128, 127),
    UINT8(1, 0, 255)
}

/** An input or output: real = scale * (integer - zero point). `shape` includes the batch of one. */
class TensorInfo(val kind: Kind, val shape: IntArray, val scale: Float, val zeroPoint: Int) {
    val count = shape.fold(1) { product, size -> product * size }

    /** A buffer that the interpreter reads from, or writes into. */
    fun buffer(): ByteBuffer = ByteBuffer.allocateDirect(count * kind.bytes).order(ByteOrder.nativeOrder())

    /** The elements for these real values. */
    fun elements(real: FloatArray): ByteBuffer {
        require(real.size == count) { "the tensor takes $count numbers, not ${real.size}" }
        val buffer = buffer()
        for (value in real) {
            if (kind == Kind.FLOAT32) {
                buffer.putFloat(value)
            } else {
                val integer = Math.rint((value / scale).toDouble()) + zeroPoint // ties to even, as tfq and the runtime
                buffer.put(integer.coerceIn(kind.low.toDouble(), kind.high.toDouble()).toInt().toByte())
            }
        }
        buffer.rewind()
        return buffer
    }

    /** The real values of elements. */
    fun real(elements: ByteBuffer): FloatArray {
        elements.rewind()
        return FloatArray(count) {
            when (kind) {
                Kind.FLOAT32 -> elements.float
                Kind.INT8 -> scaled(elements.get().toInt())
                Kind.UINT8 -> scaled(elements.get().toInt() and 255)
            }
        }
    }

    private fun scaled(integer: Int) = ((integer - zeroPoint) * scale.toDouble()).toFloat()
}

/** What an image input [1, height, width, channels] is fed for a picture. */
fun feed(picture: Picture, input: TensorInfo, metadata: Metadata): ByteBuffer {
    require(input.shape.size == 4) { "the input is ${input.shape.toList()}; expected [1, height, width, channels]" }
    val (_, height, width, channels) = input.shape
    val pixels = picture.resized(width, height, channels)
    val (mean, std) = Pair(metadata.mean, metadata.std)
    val real = FloatArray(pixels.size) { (pixels[it] - mean[it % mean.size]) / std[it % std.size] }
    return input.elements(real)
}

/** Places of the highest scores, best first; of equal ones the first. */
fun best(scores: FloatArray, count: Int): List<Int> = scores.indices.sortedByDescending { scores[it] }.take(count)
