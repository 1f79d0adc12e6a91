// SHA-256 (FIPS 180-4) of a stream of bytes. It names models, libraries and outputs in the records,
// so that a figure can be traced to the very bytes that it was measured on.

#ifndef TFQ_ANDROID_BENCH_RUNNER_SHA256_H_
#define TFQ_ANDROID_BENCH_RUNNER_SHA256_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace tfq {

class Sha256 {
 public:
  Sha256();
  void Update(const void* data, size_t size);
  // The digest in lower-case hexadecimal. Ends the stream: nothing may be added after it.
  std::string HexDigest();

 private:
  void Compress(const uint8_t* block);

  uint32_t state_[8];
  uint8_t block_[64];
  size_t filled_ = 0;
  uint64_t bytes_ = 0;
};

// Digest of a whole file, read in small pieces. Throws Error where it cannot be read.
std::string FileSha256(const std::string& path);

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_SHA256_H_
