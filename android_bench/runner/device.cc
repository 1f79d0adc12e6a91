#include "device.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <memory>

#include "library.h"
#include "processors.h"

#ifdef __ANDROID__
#include <sys/system_properties.h>
#endif

namespace tfq {
namespace {

// Files of /proc and /sys have no size of their own and are small; none where it cannot be read.
std::optional<std::string> ReadSmall(const std::string& path) {
  constexpr size_t kLimit = 8 << 20;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::string text;
  char piece[4096];
  ssize_t got = 0;
  while (text.size() < kLimit && (got = read(file, piece, sizeof(piece))) != 0) {
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    text.append(piece, static_cast<size_t>(got));
  }
  close(file);
  if (got < 0) return std::nullopt;
  return text;
}

std::string Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

std::optional<std::string> ReadWord(const std::string& path) {
  std::optional<std::string> text = ReadSmall(path);
  if (text) *text = Trimmed(*text);
  return text;
}

std::optional<int64_t> LeadingNumber(const std::optional<std::string>& text) {
  int64_t number = 0;
  if (!text) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end == text->data()) return std::nullopt;
  return number;
}

// Names in a folder that begin with `prefix`, in numeric order (zone2 before zone10).
std::vector<std::string> Entries(const std::string& folder, std::string_view prefix) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> opened(opendir(folder.c_str()), closedir);
  if (!opened) return names;
  while (const dirent* entry = readdir(opened.get())) {
    const std::string_view name = entry->d_name;
    if (name[0] != '.' && name.substr(0, prefix.size()) == prefix) names.emplace_back(name);
  }
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  return names;
}

// Sum of all lines "Pss: N kB".
std::optional<int64_t> SumPss(const std::string& maps) {
  std::optional<int64_t> sum;
  for (size_t at = maps.find("\nPss:"); at != std::string::npos; at = maps.find("\nPss:", at + 1)) {
    sum = sum.value_or(0) + std::strtoll(maps.c_str() + at + 5, nullptr, 10);
  }
  return sum;
}

void WriteThermal(JsonWriter* json) {
  const std::string folder = "/sys/class/thermal";
  json->Key("thermal").BeginArray();
  for (const std::string& zone : Entries(folder, "thermal_zone")) {
    const std::optional<int64_t> degrees = LeadingNumber(ReadWord(folder + "/" + zone + "/temp"));
    if (!degrees) continue;  // sensors that are off, or that only the system may read
    json->BeginObject();
    json->Member("zone", std::string_view(zone));
    json->Member("type", std::string_view(ReadWord(folder + "/" + zone + "/type").value_or("")));
    json->Member("millidegrees", *degrees).EndObject();
  }
  json->EndArray();
}

void WriteBattery(JsonWriter* json) {
  const std::string folder = "/sys/class/power_supply";
  for (const std::string& name : Entries(folder, "")) {
    const std::string supply = folder + "/" + name;
    if (ReadWord(supply + "/type") != "Battery") continue;
    json->Key("battery").BeginObject();
    json->Member("status", std::string_view(ReadWord(supply + "/status").value_or("")));
    json->Member("percent", LeadingNumber(ReadWord(supply + "/capacity")));
    json->Member("tenth_degrees", LeadingNumber(ReadWord(supply + "/temp")));
    json->Member("microvolts", LeadingNumber(ReadWord(supply + "/voltage_now")));
    json->Member("microamperes", LeadingNumber(ReadWord(supply + "/current_now"))).EndObject();
    return;
  }
  json->Key("battery").Null();
}

// Whether a user-mode emulator runs this program: it lets the file system of another architecture
// through in places that it does not replace. qemu replaces /proc/cpuinfo and, given a sysroot,
// looks there first; neither reaches /proc/self/../cpuinfo.
bool LooksEmulated() {
  const std::string abi = CompiledAbi();
  if (abi != "arm64-v8a" && abi != "armeabi-v7a") return false;
  const std::string cpuinfo = ReadSmall("/proc/self/../cpuinfo").value_or("");
  const std::string alias = ReadWord("/sys/devices/system/cpu/modalias").value_or("");
  return Field(cpuinfo, "vendor_id").has_value() || alias.find("type:x86") != std::string::npos;
}

void WriteProcessors(JsonWriter* json) {
  const std::string text = ReadSmall("/proc/cpuinfo").value_or("");
  std::optional<std::string> model = Field(text, "model name");
  if (!model) model = Field(text, "Hardware");
  std::optional<std::string> features = Field(text, "flags");
  if (!features) features = Field(text, "Features");
  json->Member("cpu_model", std::string_view(model.value_or("")));
  json->Member("cpu_features", std::string_view(features.value_or("")));
  // Arm names its cores by numbers: one entry for each kind of core, in the order of the
  // processors.
  std::vector<std::string> parts;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = rest.find("\n\n");
    const std::string_view block = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 2);
    const std::optional<std::string> implementer = Field(block, "CPU implementer");
    const std::optional<std::string> part = Field(block, "CPU part");
    if (!implementer || !part) continue;
    const std::string name = *implementer + ":" + *part;
    if (std::find(parts.begin(), parts.end(), name) == parts.end()) parts.push_back(name);
  }
  json->Key("cpu_parts").BeginArray();
  for (const std::string& part : parts) json->String(part);
  json->EndArray();
}

void WriteAndroid(JsonWriter* json) {
#ifdef __ANDROID__
  json->Key("android").BeginObject();
  for (const char* name :
       {"ro.product.manufacturer", "ro.product.model", "ro.product.device", "ro.soc.manufacturer",
        "ro.soc.model", "ro.board.platform", "ro.hardware", "ro.build.fingerprint",
        "ro.build.version.release", "ro.build.version.sdk", "ro.product.cpu.abilist"}) {
    char value[PROP_VALUE_MAX] = "";
    __system_property_get(name, value);
    json->Member(name, value);
  }
  json->EndObject();
#else
  json->Key("android").Null();
#endif
}

}  // namespace

std::optional<std::string> Field(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    const size_t colon = line.find(':');
    if (colon != std::string_view::npos && Trimmed(line.substr(0, colon)) == key) {
      return Trimmed(line.substr(colon + 1));
    }
  }
  return std::nullopt;
}

MemoryUse ReadMemory() {
  const std::string status = ReadSmall("/proc/self/status").value_or("");
  MemoryUse memory;
  memory.peak_kb = LeadingNumber(Field(status, "VmHWM"));
  memory.resident_kb = LeadingNumber(Field(status, "VmRSS"));
  std::optional<std::string> maps = ReadSmall("/proc/self/smaps_rollup");
  if (!maps) maps = ReadSmall("/proc/self/smaps");
  if (maps) memory.pss_kb = SumPss(*maps);
  return memory;
}

void WriteMemory(std::string_view key, const MemoryUse& memory, JsonWriter* json) {
  json->Key(key).BeginObject();
  json->Member("peak_kb", memory.peak_kb);
  json->Member("resident_kb", memory.resident_kb);
  json->Member("pss_kb", memory.pss_kb).EndObject();
}

std::string DeviceState(const std::vector<int>& processors) {
  JsonWriter json;
  json.BeginObject().Key("frequencies_khz").BeginObject();
  for (int processor : processors) {
    const std::string number = std::to_string(processor);
    json.Member(number, LeadingNumber(ReadWord("/sys/devices/system/cpu/cpu" + number +
                                               "/cpufreq/scaling_cur_freq")));
  }
  json.EndObject();
  WriteThermal(&json);
  WriteBattery(&json);
  json.EndObject();
  return json.text();
}

void WriteMachine(JsonWriter* json) {
  json->Member("abi", CompiledAbi());
  json->Member("pointer_bits", 8 * sizeof(void*));
  json->Member("emulated", LooksEmulated());
  struct utsname names;
  if (uname(&names) == 0) {
    json->Key("uname").BeginObject();
    json->Member("sysname", names.sysname).Member("release", names.release);
    json->Member("version", names.version).Member("machine", names.machine).EndObject();
  } else {
    json->Key("uname").Null();
  }
  json->Member("cpu_count", sysconf(_SC_NPROCESSORS_CONF));
  json->Member("cpu_mask", std::string_view(MaskText(AllowedProcessors())));
  json->Member("page_bytes", sysconf(_SC_PAGESIZE));
  const std::string memory = ReadSmall("/proc/meminfo").value_or("");
  json->Member("memory_kb", LeadingNumber(Field(memory, "MemTotal")));
  WriteProcessors(json);
  WriteAndroid(json);
}

}  // namespace tfq
