// One phase by the Go client; see bench/clients.py. Prints {"seconds", "cpu"}.
package main

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"

	vectron "github.com/vectron/vectron/clientlibs/go"
)

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func readRows(file string, dimension int) [][]float32 {
	data, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	rows := make([][]float32, len(data)/4/dimension)
	for i := range rows {
		rows[i] = make([]float32, dimension)
		for j := range rows[i] {
			rows[i][j] = math.Float32frombits(binary.LittleEndian.Uint32(data[(i*dimension+j)*4:]))
		}
	}
	return rows
}

func main() {
	host, token, phase, collection := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	rows := readRows(os.Args[5], number(os.Args[6]))
	count, concurrency := number(os.Args[7]), number(os.Args[8])
	client, err := vectron.NewClientWithOptions(host, token, &vectron.ClientOptions{Timeout: 2 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := client.ListCollections(); err != nil {
		log.Fatal(err)
	}
	cpuBefore, started := cpu(), time.Now()
	if phase == "ingest" {
		points := make([]*vectron.Point, len(rows))
		for i := range rows {
			points[i] = &vectron.Point{ID: fmt.Sprint("p", i), Vector: rows[i]}
		}
		if _, err := client.UpsertBatch(collection, points, &vectron.BatchOptions{Concurrency: concurrency}); err != nil {
			log.Fatal(err)
		}
	}
	for i := 0; phase == "search" && i < count; i++ {
		hits, err := client.Search(collection, rows[i%len(rows)], 10)
		if err != nil || len(hits) != 10 {
			log.Fatal(len(hits), err)
		}
	}
	fmt.Printf("{\"seconds\": %f, \"cpu\": %f}\n", time.Since(started).Seconds(), cpu()-cpuBefore)
}
