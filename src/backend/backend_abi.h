/* SPDX-License-Identifier: Apache-2.0
 * The whole contract between the launcher and a plug-in, in C. */
#pragma once

#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEKODER_BACKEND_ABI 2

/* Kokkos has room for so many OpenMP threads, and crashes beyond. */
#define DEKODER_MAX_THREADS 512

struct dekoder_backend {
  int abi; /* DEKODER_BACKEND_ABI of the build */
  /* Runs one command (YAML text); returns the exit code. stop_flag turns non-zero when a signal asks to save and
   * stop. MPI is up if the command needs it. Nothing is thrown across. */
  int (*run)(const char* command_yaml, const volatile sig_atomic_t* stop_flag);
};

/* The one symbol that a plug-in exports; never null. */
typedef const struct dekoder_backend* (*dekoder_backend_function)(void);
#define DEKODER_BACKEND_SYMBOL "dekoder_backend_entry"

#ifdef __cplusplus
}
#endif
