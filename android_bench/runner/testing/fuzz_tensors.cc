// libFuzzer target: ParseTensors on any bytes returns tensors that lie within them, or throws
// Error. Every byte of every sample is read, so that a wrong offset is a finding of
// AddressSanitizer.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "errors.h"
#include "tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::vector<uint8_t> exact(data, data + size);
    const tfq::TensorTable table = tfq::ParseTensors(exact.data(), exact.size());
    volatile uint8_t sum = 0;
    for (const tfq::StoredTensor& tensor : table.tensors) {
      for (size_t i = 0; i < tensor.spec.bytes * table.samples; ++i) {
        sum =
            static_cast<uint8_t>(sum + exact[tensor.offset + i] + exact.data()[tensor.offset + i]);
      }
    }
  } catch (const tfq::Error&) {
  }
  return 0;
}
