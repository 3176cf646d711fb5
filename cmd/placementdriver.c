#include "placementdriver/placementdriver.h"

int main(int argc, char **argv)
{
    return process_main(&placementdriver_service, argc, argv);
}
