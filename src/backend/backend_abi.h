/* SPDX-License-Identifier: Apache-2.0
 * The whole contract between the launcher and a plug-in, in C. */
#pragma once

#include <sched.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DEKODER_BACKEND_ABI 3

/* Kokkos has room for so many OpenMP threads, and crashes beyond. */
#define DEKODER_MAX_THREADS 512

/* What the launcher knows of the process. */
struct dekoder_process {
  int (*stop_signal)(void); /* the number of a signal that asks to save and stop, or 0; from any thread */
  const cpu_set_t* cpus;    /* that the process was given, before OpenMP bound a thread */
  size_t cpus_bytes;
};

struct dekoder_backend {
  int abi; /* DEKODER_BACKEND_ABI of the build */
  /* Runs one command (YAML text); returns the exit code. MPI is up where a job has several ranks. Nothing is thrown
   * across. */
  int (*run)(const char* command_yaml, const struct dekoder_process* process);
};

/* The one symbol that a plug-in exports; never null. */
typedef const struct dekoder_backend* (*dekoder_backend_function)(void);
#define DEKODER_BACKEND_SYMBOL "dekoder_backend_entry"

#ifdef __cplusplus
}
#endif
