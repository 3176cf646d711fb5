#include "authsvc/authsvc.h"

int main(int argc, char **argv)
{
    return process_main(&authsvc_service, argc, argv);
}
