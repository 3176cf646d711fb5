#include "worker/worker.h"

int main(int argc, char **argv)
{
    return process_main(&worker_service, argc, argv);
}
