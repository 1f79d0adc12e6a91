// A shared library, opened at run time. Its ELF header is read first, because the loader's own
// words for a library of another machine differ from system to system and seldom say which machine.

#ifndef TFQ_ANDROID_BENCH_RUNNER_LIBRARY_H_
#define TFQ_ANDROID_BENCH_RUNNER_LIBRARY_H_

#include <string>

namespace tfq {

// "x86_64", "arm64-v8a", "armeabi-v7a" or "x86": what this runner was compiled for, in Android's
// words.
const char* CompiledAbi();

// Throws Error unless the file is an ELF library of the machine that this runner was compiled for.
void CheckElf(const std::string& path);

class Library {
 public:
  // Throws Error for a file that is missing, of another machine, or that the loader refuses.
  explicit Library(const std::string& path);
  ~Library();
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  const std::string& path() const { return path_; }
  bool Has(const char* symbol) const { return Find(symbol) != nullptr; }

  // Sets a function pointer. Throws Error where the library has no such symbol.
  template <typename Function>
  void Bind(const char* symbol, Function** function) const {
    *function = reinterpret_cast<Function*>(Require(symbol));
  }

 private:
  void* Find(const char* symbol) const;
  void* Require(const char* symbol) const;

  std::string path_;
  void* handle_ = nullptr;
};

}  // namespace tfq

#endif  // TFQ_ANDROID_BENCH_RUNNER_LIBRARY_H_
