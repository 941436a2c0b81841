package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

// traced has the agents of a world run under strace with these arguments, from its first system call on. What
// it writes goes to the file that is returned. The agent has the process id that it would have, so signals reach it.
func (w *world) traced(t *testing.T, args ...string) (path string) {
	t.Helper()
	labtest.Need(t, "strace")
	path = filepath.Join(w.Dir, "strace.txt")
	script := filepath.Join(w.Dir, "traced.sh")
	words := append([]string{"strace", "-D", "-f", "-q", "-o", path}, args...)
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\nexec '"+strings.Join(append(words, program(t)), "' '")+"' \"$@\"\n"), 0o755))
	w.Program = script
	return path
}

// killTraced kills the agent, not strace, and waits until that has written all.
func (w *world) killTraced(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, w.Agent.Signal(syscall.SIGKILL))
	<-w.Agent.Done()
	end := regexp.MustCompile(fmt.Sprintf(`(?m)^%d .*\+\+\+ killed by SIGKILL`, w.Agent.PID()))
	eventually(t, 20*time.Second, "strace ends", func() (bool, error) {
		b, err := os.ReadFile(path)
		return end.Match(b[max(0, len(b)-10_000):]), err
	})
}

// call is a system call as strace tells of it. Its first line came when it began, or later if no other call came
// between; the last one when it had ended.
type call struct {
	name, args, result string
	first, last        int // lines
}

// calls reads what strace -f wrote, in the order in which the calls ended.
func calls(t *testing.T, path string) []call {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	open := map[string]call{} // by thread
	var all []call
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	for n := 0; lines.Scan(); n++ {
		thread, rest, _ := strings.Cut(lines.Text(), " ")
		_, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ") // without the time
		c := call{first: n, last: n}
		if text, ok := strings.CutPrefix(rest, "<... "); ok {
			if c, ok = open[thread]; !ok {
				continue
			}
			delete(open, thread)
			_, rest, _ = strings.Cut(text, " resumed>")
			c.last = n
		} else if c.name, rest, ok = strings.Cut(rest, "("); !ok {
			continue // a signal, or the end of a thread
		}
		if text, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
			c.args += text
			open[thread] = c
			continue
		}
		if at := strings.LastIndex(rest, " = "); at >= 0 {
			c.args, c.result = c.args+strings.TrimRight(rest[:at], " )"), rest[at+len(" = "):]
			all = append(all, c)
		}
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, all)
	return all
}

// logFile is the file of the log of leases that the first argument of a call names, as strace -y -xx prints it; empty: it is another file.
func (c call) logFile(t *testing.T) string {
	_, text, _ := strings.Cut(c.args, "<")
	text, _, _ = strings.Cut(text, ">")
	b, err := hex.DecodeString(strings.ReplaceAll(text, `\x`, ""))
	require.NoError(t, err, "%.200s", c.args)
	name := strings.TrimSuffix(string(b), ".tmp") // its name when it was opened
	if !strings.HasSuffix(filepath.Dir(name), "/leases") || !strings.HasSuffix(name, ".log") {
		return ""
	}
	return name
}

// escaped is how strace -xx prints bytes.
func escaped(b ...byte) string {
	var s strings.Builder
	for _, x := range b {
		s.WriteString(`\x` + hex.EncodeToString([]byte{x}))
	}
	return s.String()
}

// syncedBefore looks for the ACKs of these transactions in a trace: before each was sent the record of its address had
// been written to a file of the log, and then a sync of that file that had begun after the write had ended without an error. It returns how many ACKs it found, and those of which it is not so.
func syncedBefore(t *testing.T, path string, acks map[uint32]netip.Addr) (found int, faults []string) {
	t.Helper()
	sentXID := regexp.MustCompile(regexp.QuoteMeta(`iov_base="`+escaped(2, 1, 6)) + `\\x[0-9a-f]{2}((?:\\x[0-9a-f]{2}){4})`)
	byKey := map[string]netip.Addr{}
	for _, ip := range acks {
		byKey[escaped(ip.AsSlice()...)] = ip
	}
	// Kind, flags (alone, or of a commit of several), length of the key, 0, key: see provision/wal/frame.go.
	frame := regexp.MustCompile(regexp.QuoteMeta(escaped('l')) + `\\x0[024]` + regexp.QuoteMeta(escaped(4, 0)) + `((?:\\x[0-9a-f]{2}){4})`)
	type write struct {
		file string
		at   int // the line
	}
	written := map[netip.Addr]write{} // not synced yet
	durable := map[netip.Addr]bool{}
	for _, c := range calls(t, path) {
		switch c.name {
		case "pwrite64":
			file := c.logFile(t)
			if file == "" || strings.HasPrefix(c.result, "-") {
				continue
			}
			for _, m := range frame.FindAllStringSubmatch(c.args, -1) {
				if ip, ok := byKey[m[1]]; ok {
					written[ip] = write{file, c.last}
				}
			}
		case "fdatasync":
			file := c.logFile(t)
			if file == "" || !strings.HasPrefix(c.result, "0") || strings.Contains(c.result, "INJECTED") {
				continue
			}
			for ip, x := range written {
				if x.file == file && c.first > x.at {
					durable[ip] = true
					delete(written, ip)
				}
			}
		case "sendmsg", "sendmmsg":
			for _, message := range sentMessages(c) {
				m := sentXID.FindStringSubmatch(message)
				if m == nil || !strings.Contains(message, escaped(99, 130, 83, 99)) || !strings.Contains(message, escaped(53, 1, 5)) {
					continue
				}
				b, err := hex.DecodeString(strings.ReplaceAll(m[1], `\x`, ""))
				require.NoError(t, err)
				xid := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
				ip, ok := acks[xid]
				if !ok {
					continue
				}
				found++
				// strace tells of a call when it has ended, or when another one comes between: nothing that is told of later came before this one began.
				if !durable[ip] {
					faults = append(faults, fmt.Sprintf("the ACK %#x of %s left before its record was on disk", xid, ip))
				}
			}
		}
	}
	return found, faults
}

// sentMessages returns the messages that a call has sent.
func sentMessages(c call) []string {
	if c.name == "sendmsg" {
		return []string{c.args}
	}
	n, _ := strconv.Atoi(strings.Fields(c.result)[0])
	all := strings.Split(c.args, "msg_hdr=")[1:]
	return all[:min(max(n, 0), len(all))]
}

// traceArgs are those for syncedBefore.
var traceArgs = []string{"-y", "-v", "-xx", "-s", "16384", "-ttt", "-e", "trace=fdatasync,pwrite64,sendmsg,sendmmsg"}

// The program as the kernel sees it: each ACK of a pool follows a sync of its record.
func TestKernelPoolACKFollowsItsSync(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, crowdOptions(60))
	c := newCrowd(t, w, 60, 0, 1)
	trace := w.traced(t, traceArgs...)
	require.NoError(t, w.StartAgent(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, c.let(ctx, c.discover, c.guests()...))
	require.NoError(t, c.let(ctx, c.discover, c.guests()[0])) // alone
	require.GreaterOrEqual(t, len(c.xids), 50)
	w.killTraced(t, trace)
	found, faults := syncedBefore(t, trace, c.xids)
	require.GreaterOrEqual(t, found, len(c.xids))
	require.Empty(t, faults)
	t.Logf("%d ACKs, each after its sync", found)
}

// What takes the place of a file, or a place in the log, is on disk before, and its name before the agent goes on.
func TestKernelRenamedFilesAreSynced(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, crowdOptions(60))
	c := newCrowd(t, w, 5, 0, 1)
	trace := w.traced(t, "-y", "-ttt", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2")
	require.NoError(t, w.StartAgent(t.Context()))
	eventually(t, 20*time.Second, "the snapshot is stored", func() (bool, error) { return !w.status(t).Sync.StoredAt.IsZero(), nil })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, c.let(ctx, c.discover, c.guests()...))
	state := filepath.Join(w.Dir, "state")
	eventually(t, 20*time.Second, "the log has a file, and the next one is made", func() (bool, error) {
		made, err := filepath.Glob(filepath.Join(state, "leases", "*.log"))
		return len(made) >= 2, err
	})
	w.killTraced(t, trace)
	named := regexp.MustCompile(`"([^"]*)"(?:, [^"]*)?, "([^"]*)"`)
	opened := regexp.MustCompile(`^\d+<(.*)>$`)
	synced := map[string]bool{}
	renames, unsynced := map[string]int{}, map[string]int{} // by directory
	for _, c := range calls(t, trace) {
		if m := opened.FindStringSubmatch(c.args); m != nil && strings.HasPrefix(c.result, "0") { // a sync
			synced[m[1]] = true
			unsynced[m[1]] = 0
		} else if m := named.FindStringSubmatch(c.args); m != nil && strings.HasPrefix(c.name, "rename") {
			require.True(t, synced[m[1]], "%s got the name %s before it was on disk", m[1], m[2])
			dir := filepath.Dir(m[2])
			require.Zero(t, unsynced[dir], "the name before %s", m[2])
			renames[dir]++
			unsynced[dir]++
		}
	}
	require.Positive(t, renames[state])
	require.Zero(t, unsynced[state])
	require.GreaterOrEqual(t, renames[filepath.Join(state, "leases")], 2) // the last one may just have been made
}

// A disk whose syncs take half a second: an ACK of a pool comes later, that of a new client of a bound address
// after 100 ms, and nothing else waits. The service manager hears of the agent all the time.
func TestKernelSlowDiskDelaysNothingElse(t *testing.T) {
	const slow = 500 * time.Millisecond
	w := worldWithoutRelay(t, crowdOptions(120))
	c := newCrowd(t, w, 40, 0, 1)
	socket := filepath.Join(w.Dir, "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	const watchdog = 2 * time.Second
	w.AgentEnv = []string{"NOTIFY_SOCKET=" + socket, fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds())}
	var heard []time.Time // of the watchdog
	var listen sync.WaitGroup
	listen.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.HasPrefix(string(buf[:n]), "WATCHDOG=1") {
				heard = append(heard, time.Now())
			}
		}
	})
	defer listen.Wait()
	defer conn.Close()
	w.traced(t, "--seccomp-bpf", "-e", "trace=fdatasync", "-e", fmt.Sprintf("inject=fdatasync:delay_exit=%d", slow.Microseconds()))
	guests, customers := c.guests(), c.customers()
	require.Greater(t, len(customers), 30)
	known, fresh := customers[:len(customers)/2], customers[len(customers)/2:]
	for i, x := range known { // of whom there is nothing to report
		x.mac = provision.MAC{0x02, 2, 0, 0, 0, byte(i)}
		require.NoError(t, w.ERP.SetIPMAC(x.bound.ip, emulator.MAC(x.mac)))
		c.facts[x.bound.ip].sure = x.mac
	}
	require.NoError(t, w.StartAgent(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c.retry = 4 * time.Second // as real clients
	require.NoError(t, c.let(ctx, c.discover, known...))
	eventually(t, 20*time.Second, "what they were acknowledged is on disk", func() (bool, error) {
		m := regexp.MustCompile(`(?m)^usher_dhcp_commit_records_total (\d+)$`).FindStringSubmatch(w.metrics(t))
		if m == nil {
			return false, nil
		}
		n, err := strconv.Atoi(m[1])
		return n >= len(known), err
	})
	counted := w.outcomes(t)["ack_before_commit"]
	clear(c.waits)
	began := time.Now()
	for round := range 4 { // syncs without a pause, and renewals and OFFERs meanwhile
		for _, x := range guests[10*round : 10*round+10] {
			c.discover(x)
		}
		n := len(fresh) / 4
		for _, x := range fresh[n*round : n*round+n] {
			c.swap(x)
		}
		require.NoError(t, c.let(ctx, c.renew, known...))
	}
	took := time.Since(began)
	_ = conn.Close()
	listen.Wait()
	require.Empty(t, c.faults)
	for _, what := range slices.Sorted(maps.Keys(c.waits)) {
		slices.Sort(c.waits[what])
		list := c.waits[what]
		t.Logf("%s: %d, median %v, longest %v", what, len(list), list[len(list)/2], list[len(list)-1])
	}
	median := func(what string) time.Duration {
		require.NotEmpty(t, c.waits[what], what)
		return c.waits[what][len(c.waits[what])/2]
	}
	assert.GreaterOrEqual(t, c.waits["new guest"][0], slow, "an ACK of a pool does not leave before its sync")
	assert.Less(t, median("new guest"), 4*slow+slow/2, "it waits for four syncs at most, others' among them")
	assert.Len(t, c.waits["new guest"], len(guests), "all come")
	assert.GreaterOrEqual(t, median("new customer"), commitTimeout)
	assert.Less(t, median("new customer"), slow, "they do not wait for the disk")
	assert.Less(t, median("offer"), commitTimeout)
	assert.Less(t, median("renewal"), commitTimeout)
	late := w.outcomes(t)["ack_before_commit"] - counted
	assert.Positive(t, late)
	t.Logf("%d ACKs before their commit in %v, %d words for the watchdog", late, took, len(heard))
	require.NotEmpty(t, heard)
	for i, at := range heard[1:] {
		assert.Less(t, at.Sub(heard[i]), watchdog, "the watchdog would have ended the agent")
	}
}

// A disk that says of every fifth sync that it failed: what it did not say to be on disk is not acknowledged, and
// after a kill -9 every lease of a pool that was is there.
func TestKernelSyncErrorsAcknowledgeNothing(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, crowdOptions(60))
	program := w.Program
	c := newCrowd(t, w, 400, 30, 1)
	c.fails = true
	trace := w.traced(t, append([]string{"-e", "inject=fdatasync:error=EIO:when=3+5"}, traceArgs...)...)
	require.NoError(t, w.StartAgent(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	c.run(ctx)
	cancel()
	refused := w.outcomes(t)["pool_not_durable"]
	w.killTraced(t, trace)
	text, err := os.ReadFile(trace)
	require.NoError(t, err)
	failed := strings.Count(string(text), "EIO (Input/output error) (INJECTED)")
	require.Positive(t, failed)
	require.Positive(t, refused)
	require.NotEmpty(t, c.xids)
	found, faults := syncedBefore(t, trace, c.xids)
	require.Empty(t, faults)
	require.GreaterOrEqual(t, found, len(c.xids))
	w.Program = program
	require.NoError(t, w.StartAgent(t.Context()))
	pools, _ := c.check(t, w)
	t.Logf("%d syncs failed, %d ACKs of pools left, %d did not; %d leases of pools afterwards", failed, found, refused, pools)
	require.NoError(t, w.Agent.Signal(syscall.SIGTERM))
	<-w.Agent.Done()
}
