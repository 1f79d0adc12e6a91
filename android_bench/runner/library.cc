#include "library.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "errors.h"

namespace tfq {
namespace {

struct Machine {
  uint16_t elf;  // e_machine
  uint8_t bits;
  const char* abi;
};

constexpr Machine kMachines[] = {
    {62, 64, "x86_64"}, {183, 64, "arm64-v8a"}, {40, 32, "armeabi-v7a"}, {3, 32, "x86"}};

std::string MachineName(uint16_t elf, uint8_t bits) {
  for (const Machine& machine : kMachines) {
    if (machine.elf == elf && machine.bits == bits) return machine.abi;
  }
  return "ELF machine " + std::to_string(elf) + ", " + std::to_string(bits) + " bits";
}

}  // namespace

const char* CompiledAbi() {
#if defined(__x86_64__)
  return "x86_64";
#elif defined(__aarch64__)
  return "arm64-v8a";
#elif defined(__arm__)
  return "armeabi-v7a";
#elif defined(__i386__)
  return "x86";
#else
#error "the runner is for x86-64, x86, arm64 and arm"
#endif
}

void CheckElf(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw SystemError("open the library", path);
  uint8_t header[20];
  const ssize_t got = read(file, header, sizeof(header));
  close(file);
  if (got != static_cast<ssize_t>(sizeof(header)) || std::memcmp(header,
                                                                 "\x7f"
                                                                 "ELF",
                                                                 4) != 0) {
    throw Error(path + " is no ELF library; give the .so of the runtime");
  }
  const uint8_t bits = header[4] == 2 ? 64 : 32;
  const uint16_t machine = static_cast<uint16_t>(header[18] | header[19] << 8);
  const std::string name = MachineName(machine, bits);
  if (name != CompiledAbi()) {
    throw Error(path + " is a library for " + name + ", and this runner is for " + CompiledAbi() +
                "; give the library of that ABI");
  }
}

Library::Library(const std::string& path) : path_(path) {
  CheckElf(path);
  handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    const char* reason = dlerror();
    throw Error("the library " + path + " cannot be loaded: " + (reason ? reason : "no reason"));
  }
}

Library::~Library() { dlclose(handle_); }

void* Library::Find(const char* symbol) const { return dlsym(handle_, symbol); }

void* Library::Require(const char* symbol) const {
  void* found = Find(symbol);
  if (found == nullptr) {
    throw Error("the library " + path_ + " has no symbol " + symbol +
                "; it is no runtime that this runner knows: libLiteRt.so 2.2 or 2.3, or a library "
                "with the classic TensorFlow Lite C API");
  }
  return found;
}

}  // namespace tfq
