#include "apigateway/apigateway.h"

int main(int argc, char **argv)
{
    return process_main(&apigateway_service, argc, argv);
}
