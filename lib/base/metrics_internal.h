#pragma once

// What the metrics of the process itself (memory, time, files) and the registry share.

struct metrics_process {
    double cpu_seconds;
    double resident_bytes;
    double virtual_bytes;
    double open_fds;
    double max_fds;
    double threads;
    double start_time_seconds; // Unix
};

// Fills in what the system tells; what it does not is 0. Any thread.
void metrics_process_read(struct metrics_process *out);
