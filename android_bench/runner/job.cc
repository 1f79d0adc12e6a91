#include "job.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>

#include "errors.h"

namespace tfq {
namespace {

constexpr size_t kMaxLine = 8192;
constexpr size_t kMaxTasks = 10000;
constexpr size_t kMaxId = 200;
constexpr size_t kMaxMask = 256;  // digits: 1024 processors
constexpr std::string_view kFirstLine = "tfq-job 1";
constexpr std::string_view kIdCharacters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:+=@,/-";

// Text from the file in a message: shortened, and nothing but printable characters.
std::string Shown(std::string_view text) {
  std::string shown = "'";
  for (char c : text.substr(0, 80)) shown += c >= 0x20 && c < 0x7f ? c : '?';
  return shown + (text.size() > 80 ? "...'" : "'");
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// One line that is being read: its number, for the messages.
class Line {
 public:
  Line(size_t number, std::string_view text) : number_(number), text_(text) {}

  std::string_view text() const { return text_; }
  Error Wrong(const std::string& what) const {
    return Error("line " + std::to_string(number_) + ": " + what);
  }
  Error Wrong(std::string_view key, std::string_view got, const std::string& expected) const {
    return Wrong(std::string(key) + " is " + Shown(got) + ", expected " + expected);
  }

 private:
  size_t number_;
  std::string_view text_;
};

std::string Decode(const Line& line, std::string_view key, std::string_view value) {
  std::string out;
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i] != '%') {
      out += value[i];
      continue;
    }
    const int high = i + 2 < value.size() ? HexDigit(value[i + 1]) : -1;
    const int low = i + 2 < value.size() ? HexDigit(value[i + 2]) : -1;
    if (high < 0 || low < 0) throw line.Wrong(key, value, "two hexadecimal digits after each %");
    if (high == 0 && low == 0) throw line.Wrong(key, value, "no %00");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  if (out.empty()) throw line.Wrong(key, value, "a value that is not empty");
  return out;
}

int64_t Integer(const Line& line, std::string_view key, std::string_view value, int64_t low,
                int64_t high) {
  int64_t number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc() || stop != end || number < low || number > high) {
    throw line.Wrong(key, value,
                     "an integer from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

// Seconds: digits with at most one point. Plain text, because from_chars of doubles is missing in
// older C++ libraries and strtod takes far more than digits.
double Seconds(const Line& line, std::string_view key, std::string_view value, double low,
               double high) {
  const std::string text(value);
  const bool plain = !text.empty() && text.size() <= 20 &&
                     text.find_first_not_of("0123456789.") == std::string::npos &&
                     std::count(text.begin(), text.end(), '.') <= 1 && text != ".";
  const double seconds = plain ? std::strtod(text.c_str(), nullptr) : -1;
  if (!plain || seconds < low || seconds > high) {
    throw line.Wrong(key, value,
                     "seconds from " + std::to_string(low) + " to " + std::to_string(high) +
                         " in plain decimal");
  }
  return seconds;
}

template <typename Enum>
Enum Choice(const Line& line, std::string_view key, std::string_view value,
            std::initializer_list<Enum> choices) {
  std::string known;
  for (Enum choice : choices) {
    if (value == Name(choice)) return choice;
    known += (known.empty() ? "" : " or ") + std::string(Name(choice));
  }
  throw line.Wrong(key, value, known);
}

void SetJobKey(const Line& line, std::string_view key, std::string_view value, Job* job) {
  if (key == "library") {
    job->library = Decode(line, key, value);
  } else if (key == "runtime") {
    job->runtime =
        Choice(line, key, value, {RuntimeKind::kAuto, RuntimeKind::kLiteRt, RuntimeKind::kTflite});
  } else {
    throw line.Wrong("unknown key " + Shown(key) + ", expected library, runtime or a task");
  }
}

void SetTaskKey(const Line& line, std::string_view key, std::string_view value, Task* task) {
  constexpr double kDay = 86400;
  if (key == "mode") {
    task->mode = Choice(line, key, value, {Mode::kLatency, Mode::kOutputs, Mode::kProfile});
  } else if (key == "model") {
    task->model = Decode(line, key, value);
  } else if (key == "inputs") {
    task->inputs = Decode(line, key, value);
  } else if (key == "outputs") {
    task->outputs = Decode(line, key, value);
  } else if (key == "kernels") {
    task->kernels = Choice(line, key, value, {Kernels::kXnnpack, Kernels::kBuiltin});
  } else if (key == "delegate") {
    task->delegate = Decode(line, key, value);
  } else if (key == "threads") {
    task->threads = static_cast<int>(Integer(line, key, value, 1, 1024));
  } else if (key == "cpu_mask") {
    try {
      MaskProcessors(value);
    } catch (const Error& error) {
      throw line.Wrong(error.what());
    }
    task->cpu_mask = std::string(value);
  } else if (key == "warmup_s") {
    task->warmup_s = Seconds(line, key, value, 0, kDay);
  } else if (key == "min_runs") {
    task->min_runs = Integer(line, key, value, 1, 1000000);
  } else if (key == "max_runs") {
    task->max_runs = Integer(line, key, value, 1, 1000000);
  } else if (key == "min_seconds") {
    task->min_seconds = Seconds(line, key, value, 0, kDay);
  } else if (key == "deadline_s") {
    task->deadline_s = Seconds(line, key, value, 0.001, kDay);
  } else if (key == "reset_state") {
    task->reset_state = Integer(line, key, value, 0, 1) == 1;
  } else {
    throw line.Wrong("unknown key " + Shown(key) +
                     ", expected mode, model, inputs, outputs, kernels, delegate, threads, "
                     "cpu_mask, warmup_s, min_runs, max_runs, min_seconds, deadline_s or "
                     "reset_state");
  }
}

// Checks that need all keys of a task; `line` is where the task begins.
void CheckTask(const Line& line, const Task& task, const std::set<std::string>& keys) {
  const std::string subject = "task " + task.id;
  for (const char* key : {"mode", "model", "inputs"}) {
    if (!keys.count(key)) throw line.Wrong(subject + " has no " + key + "; add " + key + "=...");
  }
  if ((task.mode == Mode::kOutputs) != (keys.count("outputs") == 1)) {
    throw line.Wrong(subject + " has the mode " + Name(task.mode) +
                     (task.mode == Mode::kOutputs ? " and needs outputs=PATH"
                                                  : ", which takes no outputs=PATH"));
  }
  if (task.max_runs < task.min_runs) {
    throw line.Wrong(subject + " has max_runs " + std::to_string(task.max_runs) +
                     ", expected at least min_runs, " + std::to_string(task.min_runs));
  }
}

}  // namespace

const char* Name(RuntimeKind runtime) {
  switch (runtime) {
    case RuntimeKind::kLiteRt:
      return "litert";
    case RuntimeKind::kTflite:
      return "tflite";
    case RuntimeKind::kAuto:
      break;
  }
  return "auto";
}

const char* Name(Mode mode) {
  switch (mode) {
    case Mode::kOutputs:
      return "outputs";
    case Mode::kProfile:
      return "profile";
    case Mode::kLatency:
      break;
  }
  return "latency";
}

const char* Name(Kernels kernels) { return kernels == Kernels::kXnnpack ? "xnnpack" : "builtin"; }

std::vector<int> MaskProcessors(std::string_view mask) {
  if (mask.substr(0, 2) == "0x") mask.remove_prefix(2);
  std::vector<int> processors;
  for (size_t i = 0; i < mask.size() && mask.size() <= kMaxMask; ++i) {
    const int digit = HexDigit(mask[mask.size() - 1 - i]);
    if (digit < 0) {
      processors.clear();
      break;
    }
    for (int bit = 0; bit < 4; ++bit) {
      if (digit >> bit & 1) processors.push_back(static_cast<int>(4 * i) + bit);
    }
  }
  if (processors.empty()) {
    throw Error("cpu_mask is " + Shown(mask) +
                ", expected 1 to 256 hexadecimal digits, not all of them 0");
  }
  return processors;
}

Job ParseJob(std::string_view text) {
  Job job;
  std::set<std::string> ids, keys;
  Line task_line(0, "");
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const Line line(++number, text.substr(0, end));
    if (end == std::string_view::npos) {
      throw line.Wrong("the last line has no newline; the file may be cut off");
    }
    text.remove_prefix(end + 1);
    if (line.text().size() > kMaxLine) {
      throw line.Wrong("a line of " + std::to_string(line.text().size()) +
                       " bytes, expected at most " + std::to_string(kMaxLine));
    }
    for (char c : line.text()) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
        throw line.Wrong("a control character; write it as %XX inside a value");
      }
    }
    if (number == 1) {
      if (line.text() != kFirstLine) {
        throw line.Wrong("got " + Shown(line.text()) + ", expected '" + std::string(kFirstLine) +
                         "'");
      }
      continue;
    }
    if (line.text().empty() || line.text()[0] == '#') continue;
    if (line.text().substr(0, 5) == "task ") {
      if (!job.tasks.empty()) CheckTask(task_line, job.tasks.back(), keys);
      const std::string_view id = line.text().substr(5);
      if (id.empty() || id.size() > kMaxId ||
          id.find_first_not_of(kIdCharacters) != std::string_view::npos) {
        throw line.Wrong("task", id, "1 to 200 letters, digits or ._:+=@,/-");
      }
      if (!ids.insert(std::string(id)).second) {
        throw line.Wrong("a second task " + Shown(id) + ", expected each name once");
      }
      if (job.tasks.size() == kMaxTasks) {
        throw line.Wrong("more than " + std::to_string(kMaxTasks) + " tasks; split the job");
      }
      if (job.library.empty()) throw line.Wrong("no library=PATH before the first task");
      job.tasks.emplace_back();
      job.tasks.back().id = std::string(id);
      task_line = line;
      keys.clear();
      continue;
    }
    const size_t equals = line.text().find('=');
    if (equals == std::string_view::npos) {
      throw line.Wrong("got " + Shown(line.text()) + ", expected key=value or 'task NAME'");
    }
    const std::string_view key = line.text().substr(0, equals);
    const std::string_view value = line.text().substr(equals + 1);
    if (!keys.insert(std::string(key)).second) {
      throw line.Wrong("a second " + Shown(key) + ", expected each key once");
    }
    if (job.tasks.empty()) {
      SetJobKey(line, key, value, &job);
    } else {
      SetTaskKey(line, key, value, &job.tasks.back());
    }
  }
  if (number == 0) throw Error("line 1: an empty file, expected '" + std::string(kFirstLine) + "'");
  if (job.tasks.empty()) throw Error("no task; add 'task NAME' and its keys");
  CheckTask(task_line, job.tasks.back(), keys);
  return job;
}

}  // namespace tfq
