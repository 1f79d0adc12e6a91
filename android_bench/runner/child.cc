#include "child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>

#include "clock.h"
#include "errors.h"

namespace tfq {
namespace {

constexpr size_t kTail = 2000;
constexpr size_t kMaxMessage = 64 << 20;
constexpr char kStage = 'S', kResult = 'R', kError = 'E';
constexpr int kStopSignals[] = {SIGTERM, SIGHUP, SIGINT};

volatile sig_atomic_t stop_signal = 0;

void RememberSignal(int signal) {
  if (signal != SIGCHLD) stop_signal = signal;
}

// A stop signal that the runner was started to ignore (nohup) stays ignored.
void SetHandlers(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigemptyset(&action.sa_mask);
  for (int signal : kStopSignals) {
    struct sigaction before;
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
  sigaction(SIGCHLD, &action, nullptr);
}

sigset_t HandledSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  for (int signal : kStopSignals) sigaddset(&set, signal);
  return set;
}

struct Pipe {
  int read_end = -1;
  int write_end = -1;

  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw SystemError("make", "a pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    close(read_end);
    CloseWriteEnd();
  }
  void CloseWriteEnd() {
    if (write_end >= 0) close(write_end);
    write_end = -1;
  }
};

// Message: kind, length (8 bytes), bytes. The parent that reads it may be gone; then the child dies
// of SIGPIPE, which is right.
void Send(int pipe, char kind, std::string_view text) {
  std::string message(1, kind);
  const uint64_t size = text.size();
  message.append(reinterpret_cast<const char*>(&size), sizeof(size));
  message += text;
  for (size_t sent = 0; sent < message.size();) {
    const ssize_t written = write(pipe, message.data() + sent, message.size() - sent);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) _exit(3);
    sent += static_cast<size_t>(written);
  }
}

[[noreturn]] void RunChild(const std::function<std::string(const Stage&)>& work, int messages,
                           int output, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(3);  // the parent died before the line above
  SetHandlers(SIG_DFL);
  const sigset_t handled = HandledSignals();
  sigprocmask(SIG_UNBLOCK, &handled, nullptr);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, 0);
  dup2(output, 1);
  dup2(output, 2);
  try {
    Send(messages, kResult, work([&](std::string_view stage) { Send(messages, kStage, stage); }));
  } catch (const std::exception& error) {
    Send(messages, kError, error.what());
  }
  _exit(0);  // without the runtime's destructors: the result is out, and they may crash
}

// Reads what is there without waiting; false at the end.
bool Drain(int pipe, std::string* into) {
  char piece[65536];
  for (;;) {
    const ssize_t got = read(pipe, piece, sizeof(piece));
    if (got > 0) {
      into->append(piece, static_cast<size_t>(got));
    } else if (got == 0) {
      return false;
    } else if (errno != EINTR) {
      return errno == EAGAIN || errno == EWOULDBLOCK;
    }
  }
}

// Takes whole messages off the front of `received`; true once the result or the error has come.
bool TakeMessages(std::string* received, ChildEnd* end) {
  bool complete = false;
  uint64_t size;
  while (received->size() >= 1 + sizeof(size)) {
    std::memcpy(&size, received->data() + 1, sizeof(size));
    if (received->size() - 1 - sizeof(size) < size) break;
    const char kind = (*received)[0];
    std::string text = received->substr(1 + sizeof(size), static_cast<size_t>(size));
    received->erase(0, 1 + sizeof(size) + static_cast<size_t>(size));
    if (kind == kStage) {
      end->stage = std::move(text);
    } else {
      end->ending = kind == kResult ? Ending::kResult : Ending::kError;
      end->text = std::move(text);
      complete = true;
    }
  }
  return complete;
}

void KeepTail(std::string* text) {
  if (text->size() > kTail) text->erase(0, text->size() - kTail);
}

}  // namespace

void HandleSignals() {
  const sigset_t handled = HandledSignals();
  sigprocmask(SIG_BLOCK, &handled, nullptr);  // they come through only while ppoll sleeps
  SetHandlers(RememberSignal);
}

int StopSignal() {
  // A signal that came while nothing slept is still pending: let it in.
  sigset_t none;
  sigemptyset(&none);
  const timespec now = {};
  ppoll(nullptr, 0, &now, &none);
  return stop_signal;
}

ChildEnd RunInChild(const std::function<std::string(const Stage&)>& work, double deadline_s) {
  Pipe messages, output;
  const double start = Now();
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) throw SystemError("start", "a process");
  if (child == 0) RunChild(work, messages.write_end, output.write_end, parent);
  setpgid(child, child);  // by both, so that it is done whoever runs first
  messages.CloseWriteEnd();
  output.CloseWriteEnd();
  fcntl(messages.read_end, F_SETFL, O_NONBLOCK);
  fcntl(output.read_end, F_SETFL, O_NONBLOCK);

  ChildEnd end;
  std::string received;
  bool complete = false, stopped = false, late = false;
  int status = 0;
  pollfd waiting[2] = {{messages.read_end, POLLIN, 0}, {output.read_end, POLLIN, 0}};
  sigset_t none;
  sigemptyset(&none);
  const auto read_all = [&] {
    if (!Drain(messages.read_end, &received)) waiting[0].fd = -1;
    if (!Drain(output.read_end, &end.output_tail)) waiting[1].fd = -1;
    complete = TakeMessages(&received, &end) || complete;
    KeepTail(&end.output_tail);
  };
  for (;;) {
    const bool ended = waitpid(child, &status, WNOHANG) == child;
    read_all();
    if (ended) break;
    const double left = start + deadline_s - Now();
    stopped = stop_signal != 0;
    late = left <= 0;
    if (stopped || late || received.size() > kMaxMessage) {
      kill(-child, SIGKILL);
      kill(child, SIGKILL);
      while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
      read_all();
      break;
    }
    timespec timeout;
    timeout.tv_sec = static_cast<time_t>(left);
    timeout.tv_nsec = static_cast<long>((left - static_cast<double>(timeout.tv_sec)) * 1e9);
    ppoll(waiting, 2, &timeout, &none);
  }
  kill(-child, SIGKILL);  // whatever it started and left behind
  end.seconds = Now() - start;
  if (stopped) {
    end.ending = Ending::kStopped;
    end.code = stop_signal;
  } else if (complete && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    // The ending is what the message said.
  } else if (late) {
    end.ending = Ending::kTimeout;
  } else if (WIFSIGNALED(status)) {
    end.ending = Ending::kSignal;
    end.code = WTERMSIG(status);
  } else {
    end.ending = Ending::kExit;
    end.code = WEXITSTATUS(status);
  }
  return end;
}

}  // namespace tfq
