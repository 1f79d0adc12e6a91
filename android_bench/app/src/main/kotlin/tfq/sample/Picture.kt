package tfq.sample

import kotlin.math.floor
import kotlin.math.min

/** A picture as Android has it: ARGB, 8 bits each, row by row. */
class Picture(val width: Int, val height: Int, private val argb: IntArray) {
    init {
        require(argb.size == width * height) { "$width x $height pixels need as many colours, not ${argb.size}" }
    }

    /**
     * Numbers 0..255 [height, width, channels] of another size: 3 channels are RGB, 1 is grey.
     *
     * Bilinear between pixel centres, without keeping the ratio of the sides, as tfq resizes what it calibrates on:
     * row i of the result lies at row (i + 1/2) * height / rows - 1/2 of the picture.
     */
    fun resized(columns: Int, rows: Int, channels: Int): FloatArray {
        require(channels == 1 || channels == 3) { "a picture has 1 or 3 channels, not $channels" }
        val across = (0 until columns).map { Between(it, columns, width) }
        val numbers = FloatArray(rows * columns * channels)
        var place = 0
        for (row in 0 until rows) {
            val y = Between(row, rows, height)
            for (x in across) {
                for (channel in 0 until channels) {
                    fun at(column: Int) =
                        y.blend(value(column, y.low, channel, channels), value(column, y.high, channel, channels))
                    numbers[place++] = x.blend(at(x.low), at(x.high))
                }
            }
        }
        return numbers
    }

    private fun value(x: Int, y: Int, channel: Int, channels: Int): Float {
        val color = argb[y * width + x]
        val (red, green, blue) = Triple(color shr 16 and 255, color shr 8 and 255, color and 255)
        return when {
            channels == 1 -> (red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16 // ITU-R 601, in 65536ths
            channel == 0 -> red
            channel == 1 -> green
            else -> blue
        }.toFloat()
    }

    /** The two places of the picture between which place `index` of `count` lies, and how near the second. */
    private class Between(index: Int, count: Int, size: Int) {
        private val place = ((index + 0.5) * (size.toDouble() / count) - 0.5).coerceIn(0.0, size - 1.0)
        val low = floor(place).toInt()
        val high = min(low + 1, size - 1)
        private val weight = (place - low).toFloat()

        fun blend(first: Float, second: Float) = first + (second - first) * weight
    }
}
