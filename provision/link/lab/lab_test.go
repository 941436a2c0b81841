package lab

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// needRoot skips without root; where the kernel tests are required it fails.
func needRoot(t *testing.T) {
	t.Helper()
	if missing := Missing(); len(missing) > 0 {
		if os.Getenv("USHER_REQUIRE_KERNEL") == "1" {
			t.Fatalf("the kernel tests are required, but this machine lacks %s", strings.Join(missing, ", "))
		}
		t.Skipf("needs %s", strings.Join(missing, ", "))
	}
}

func TestKernelLabWiresHostsAndLeavesNothing(t *testing.T) {
	needRoot(t)
	l, err := New("lab", t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	a, err := l.Host("a")
	require.NoError(t, err)
	b, err := l.Host("b")
	require.NoError(t, err)
	require.NoError(t, l.Wire(a, "eth0", b, "eth0"))
	require.NoError(t, a.IP("addr", "add", "192.0.2.1/24", "dev", "eth0"))
	require.NoError(t, b.IP("addr", "add", "192.0.2.2/24", "dev", "eth0"))

	ln, err := b.Listen("192.0.2.2:7000")
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	}()
	conn, err := a.Dial("192.0.2.2:7000", 2*time.Second)
	require.NoError(t, err)
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))

	out, err := a.Output(context.Background(), "cat", "/proc/sys/net/ipv4/ip_forward")
	require.NoError(t, err)
	require.NotEmpty(t, out)
	p, err := a.Start("sleep", "600")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	select {
	case <-p.Done():
	default:
		t.Fatal("a process outlived the lab")
	}
	names, err := exec.Command("ip", "netns", "list").Output()
	require.NoError(t, err)
	require.NotContains(t, string(names), l.prefix)
	require.NoError(t, l.Close(), "a second Close is harmless")
}

func TestKernelLabSweepsAfterAKilledProcess(t *testing.T) {
	needRoot(t)
	// No process has this pid: it is above the kernel's limit of 2^22.
	const left = "usher-lab-4999999-orphan"
	require.NoError(t, exec.Command("ip", "netns", "add", left).Run())
	l, err := New("lab", t.TempDir())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	names, err := exec.Command("ip", "netns", "list").Output()
	require.NoError(t, err)
	require.NotContains(t, string(names), left)
}
