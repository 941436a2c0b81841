package cpu

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUsedGrowsWithWork(t *testing.T) {
	before, err := Used(os.Getpid())
	require.NoError(t, err)
	require.Positive(t, before)
	for end := time.Now().Add(10 * time.Millisecond); time.Now().Before(end); { // works
	}
	after, err := Used(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before)
	_, err = Used(1 << 28)
	require.ErrorContains(t, err, "processor time of process 268435456")
}

func TestPinTiesAllThreads(t *testing.T) {
	all, err := Allowed()
	require.NoError(t, err)
	require.NotEmpty(t, all)
	defer func() { require.NoError(t, Pin(0, all...)) }()
	require.NoError(t, Pin(os.Getpid(), all[0]))
	got := make(chan []int)
	for range 10 {
		go func() {
			mine, err := Allowed()
			if err != nil {
				mine = nil
			}
			got <- mine
		}()
	}
	for range 10 {
		require.Equal(t, all[:1], <-got)
	}
	require.Error(t, Pin(1<<28, all[0]))
}

func TestWritten(t *testing.T) {
	if _, err := os.Stat("/proc/self/io"); err != nil {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatal("the kernel does not count what a process writes: bench/dora measures by it")
		}
		t.Skip("the kernel does not count what a process writes")
	}
	_, err := Written(os.Getpid())
	require.NoError(t, err)
	_, err = Written(1 << 28)
	require.Error(t, err)
}
