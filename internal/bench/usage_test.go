package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// usage is what a server has used since it began.
type usage struct {
	cpu      time.Duration
	mallocs  float64
	redis    float64       // commands, of whomever
	redisCPU time.Duration // of whomever
}

func (s *scene) usage(t *testing.T, c contender) usage {
	t.Helper()
	u := usage{redis: s.commands(t), redisCPU: s.redisCPU(t)}
	if c.process != nil {
		u.mallocs, u.cpu = metric(t, c.metrics, "go_memstats_mallocs_total"), cpuOf(t, c.process.Pid)
	}
	return u
}

// cpuOf returns the time that a process has had of processors.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc(5): utime and stime are the 14th and 15th, and the second, in parentheses,
	// may have spaces. A tick is 10 ms on every Linux there is.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// get returns what the operators' port at an address answers with.
func get(t *testing.T, address, path string) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// metric returns the value of a metric without labels.
func metric(t *testing.T, address, name string) float64 {
	t.Helper()
	_, all := get(t, address, "/metrics")
	for line := range strings.Lines(string(all)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no metric %s", address, name)
	return 0
}

// commands returns how many commands Redis was sent that are of data.
func (s *scene) commands(t *testing.T) float64 {
	t.Helper()
	stats, err := s.redis.Client().Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all float64
	for line := range strings.Lines(stats) {
		var name string
		var calls float64
		name, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "cmdstat_"), ":calls=")
		if !ok || name == "info" {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%f,", &calls); err != nil {
			t.Fatal(err)
		}
		all += calls
	}
	return all
}

// redisCPU returns the time that Redis has had of processors.
func (s *scene) redisCPU(t *testing.T) time.Duration {
	t.Helper()
	info, err := s.redis.Client().Info(context.Background(), "cpu").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all float64
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name != "used_cpu_sys" && name != "used_cpu_user" {
			continue
		}
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		all += seconds
	}
	return time.Duration(all * float64(time.Second))
}
