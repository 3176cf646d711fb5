#include "reranker/reranker.h"

int main(int argc, char **argv)
{
    return process_main(&reranker_service, argc, argv);
}
