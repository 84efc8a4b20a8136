// SPDX-License-Identifier: Apache-2.0
#include "launcher/signal_table.hpp"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <string_view>

#include "launcher/process_start.hpp"

namespace dekoder {

namespace {

enum class Action {
  save,  ///< train saves, eval, generate and selftest end in order; every other command dies of it, as programs do
  save_or_nohup,  ///< the same, but ignored where the process was started with it ignored
  ignore,         ///< in every command: the system call fails, and its error is reported
  unread,         ///< train ignores it: a training outlives the reader of its log; every other command dies of it
  inherited       ///< as the process was started with it: what the system does by default, or ignored
};

struct Row {
  int signal;
  Action action;
};

/// Every signal of Linux that can be caught. The real-time signals (SIGRTMIN to SIGRTMAX) are inherited.
constexpr Row table[] = {
    {SIGTERM, Action::save},          // schedulers, kill
    {SIGINT, Action::save},           // Ctrl-C
    {SIGUSR1, Action::save},          // sbatch --signal=USR1@120
    {SIGUSR2, Action::save},          // submitit
    {SIGXCPU, Action::save},          // ulimit -t, some schedulers
    {SIGHUP, Action::save_or_nohup},  // the terminal was closed
    {SIGXFSZ, Action::ignore},        // ulimit -f: writing fails with EFBIG
    {SIGPIPE, Action::unread},        // nobody reads on
    // End the process.
    {SIGQUIT, Action::inherited},
    {SIGILL, Action::inherited},
    {SIGTRAP, Action::inherited},
    {SIGABRT, Action::inherited},
    {SIGBUS, Action::inherited},
    {SIGFPE, Action::inherited},
    {SIGSEGV, Action::inherited},
    {SIGSYS, Action::inherited},
    {SIGALRM, Action::inherited},
    {SIGVTALRM, Action::inherited},
    {SIGPROF, Action::inherited},
    {SIGSTKFLT, Action::inherited},
    {SIGIO, Action::inherited},
    {SIGPWR, Action::inherited},
    // Suspend it until SIGCONT.
    {SIGTSTP, Action::inherited},
    {SIGTTIN, Action::inherited},
    {SIGTTOU, Action::inherited},
    // Change nothing.
    {SIGCHLD, Action::inherited},
    {SIGCONT, Action::inherited},
    {SIGURG, Action::inherited},
    {SIGWINCH, Action::inherited},
};

/// Written by the handler, on whatever thread it runs.
std::atomic<int> first_signal = 0;
std::atomic<std::int64_t> interrupted_at = 0;  ///< of the first SIGINT, nanoseconds; 0: none came
static_assert(std::atomic<std::int64_t>::is_always_lock_free, "a signal handler must not wait for a lock");

/// One Ctrl-C reaches a program in a container twice: from the terminal, and passed on by the container's runtime.
constexpr std::int64_t same_interrupt = 100'000'000;  // nanoseconds

void on_signal(int signal) {
  int none = 0;
  first_signal.compare_exchange_strong(none, signal);
  if (signal != SIGINT) return;
  timespec clock = {};
  clock_gettime(CLOCK_MONOTONIC, &clock);
  const std::int64_t now = std::int64_t{clock.tv_sec} * 1'000'000'000 + clock.tv_nsec;
  std::int64_t first = 0;
  if (interrupted_at.compare_exchange_strong(first, now) || now - first < same_interrupt) return;
  constexpr std::string_view text = "\ndekoder: second interrupt: ending at once; the last checkpoint stands\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
  _exit(130);
}

struct sigaction action_of(const Row& row, const std::string& command) {
  const struct sigaction& inherited = process_start().signals[static_cast<std::size_t>(row.signal)];
  struct sigaction action = {};
  sigemptyset(&action.sa_mask);
  action.sa_handler = SIG_IGN;
  const bool stops_in_order =
      command == "train" || command == "eval" || command == "generate" || command == "selftest";
  const bool nohup = row.action == Action::save_or_nohup && inherited.sa_handler == SIG_IGN;
  switch (row.action) {
    case Action::ignore:
      return action;
    case Action::unread:
      return command == "train" ? action : inherited;
    case Action::save:
    case Action::save_or_nohup:
      if (nohup || !stops_in_order) return inherited;
      action.sa_handler = on_signal;
      action.sa_flags = SA_RESTART;
      return action;
    case Action::inherited:
      break;
  }
  return inherited;
}

}  // namespace

void handle_signals(const std::string& command) {
  sigset_t blocked = process_start().blocked;
  for (const Row& row : table) {
    const struct sigaction action = action_of(row, command);
    sigaction(row.signal, &action, nullptr);
    if (action.sa_handler == on_signal) sigdelset(&blocked, row.signal);  // some launchers start with it blocked
  }
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal)
    sigaction(signal, &process_start().signals[static_cast<std::size_t>(signal)], nullptr);
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
}

int stop_signal() {
  return first_signal;
}

}  // namespace dekoder
