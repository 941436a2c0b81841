package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
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

	dhcp "github.com/usher-agent/usher/dhcpd/wire"
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

// quoted returns the bytes of the first text in what strace -xx printed, and whether it printed all of it.
func quoted(t *testing.T, s string) (b []byte, whole bool) {
	t.Helper()
	_, s, _ = strings.Cut(s, `"`)
	s, rest, _ := strings.Cut(s, `"`)
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	require.NoError(t, err, "%.200s", s)
	return b, !strings.HasPrefix(rest, "...")
}

// frame is a record of the log, and where it lies in the bytes that it was found in: see provision/wal/frame.go.
type frame struct {
	at, end    int
	kind       byte
	key, value []byte
}

// frames returns the frames that lie one behind the other from b[at] on, and where the last one ends.
func frames(b []byte, at int) (all []frame, end int) {
	const header, lengthAt, kindAt, keyAt = 16, 8, 12, 14
	for first := at; len(b)-at >= header && bytes.Equal(b[at:at+4], b[first:first+4]); at = all[len(all)-1].end {
		key := at + header
		value := key + int(b[at+keyAt])
		end := value + int(binary.BigEndian.Uint32(b[at+lengthAt:]))
		if end > len(b) || bytes.Equal(b[at:at+4], make([]byte, 4)) { // cut, or room that is not used yet
			break
		}
		all = append(all, frame{at, end, b[at+kindAt], b[key:value], b[value:end]})
	}
	return all, at
}

// lease returns the address of a lease's frame and when it was renewed, in milliseconds since 1970; false: it is something else, or says that there is
// none. See provision/lease/encoding.go.
func (f frame) lease() (ip netip.Addr, renewed int64, ok bool) {
	const renewedAt = 44
	ip, ok = netip.AddrFromSlice(f.key)
	if !ok || f.kind != 'l' || len(f.value) < renewedAt+8 {
		return netip.Addr{}, 0, false
	}
	return ip, int64(binary.BigEndian.Uint64(f.value[renewedAt:])), true
}

// syncedBefore looks in a trace for all ACKs of pools' addresses. It returns how many there are, and those that break this rule:
//
// What an ACK of a pool says is on disk when it leaves, each time: also where the client only renews (v4.ChangePoolRenew), or begins its lease anew, or
// has an address that was another one's. So a record of the address that is no older than the REQUEST was written to a file of the log before, and
// then a sync of that file began, and ended without an error, before the ACK was sent.
//
// A REQUEST that is sent again is a renewal with a record of its own: the second ACK of a transaction wants one that is no older than the second
// REQUEST. There need be no write between the two, for both records may lie in one. Nor need a record be that of the ACK's own commit: memory has
// the lease before, and whoever writes it (Table.Run after a commit that failed, Journal.Commit for a record that is older than memory's) writes what
// memory has, which holds what the ACK says. A renewal of before does not, whenever it was written: its lease ends sooner.
func syncedBefore(t *testing.T, path string, c *crowd) (found int, faults []string) {
	t.Helper()
	type write struct {
		ip      netip.Addr
		renewed int64
		file    string
		at      int // the line at which it had ended; of one that is synced: that at which its sync had
	}
	var written []write // not synced yet
	durable := map[netip.Addr][]write{}
	acks := map[uint32]int{} // by transaction
	for _, x := range calls(t, path) {
		switch x.name {
		case "pwrite64":
			file := x.logFile(t)
			if file == "" || strings.HasPrefix(x.result, "-") {
				continue
			}
			b, whole := quoted(t, x.args)
			all, end := frames(b, 0)
			require.True(t, whole || len(all) == 0 && len(bytes.Trim(b, "\x00")) == 0, "a write of the log was cut at byte %d: strace is to print more", end)
			for _, f := range all {
				if ip, renewed, ok := f.lease(); ok {
					written = append(written, write{ip, renewed, file, x.last})
				}
			}
		case "fdatasync":
			file := x.logFile(t)
			if file == "" {
				continue
			}
			worked := strings.HasPrefix(x.result, "0") && !strings.Contains(x.result, "INJECTED")
			written = slices.DeleteFunc(written, func(w write) bool {
				if w.file != file || x.first <= w.at {
					return false
				}
				if worked {
					w.at = x.last
					durable[w.ip] = append(durable[w.ip], w)
				}
				return true // what the kernel could not write it may have forgotten: no later sync counts for it
			})
		case "sendmsg", "sendmmsg":
			for _, message := range sentMessages(x) {
				_, base, _ := strings.Cut(message, "iov_base=")
				b, _ := quoted(t, base)
				var p dhcp.Packet
				if p.Parse(b) != nil || p.Op() != 2 || p.Type() != dhcp.Ack || !inCrowdPools(p.YIAddr()) {
					continue
				}
				found++
				asked, n := c.asked[p.XID()], acks[p.XID()]
				acks[p.XID()]++
				if n >= len(asked) {
					faults = append(faults, fmt.Sprintf("ACK %d of %#x, %s, had %d REQUESTs", n+1, p.XID(), p.YIAddr(), len(asked)))
					continue
				}
				// strace tells of a call when it has ended, or when another one comes between: nothing that is told of later came before this one began.
				if !slices.ContainsFunc(durable[p.YIAddr()], func(w write) bool { return w.at < x.first && w.renewed >= asked[n].UnixMilli() }) {
					faults = append(faults, fmt.Sprintf("ACK %d of %#x, %s, left before its record was on disk", n+1, p.XID(), p.YIAddr()))
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

// The program as the kernel sees it: each ACK of a pool follows a sync of its record, be it of a new lease, a renewal, a lease begun anew, an
// address that was another client's, or a REQUEST that came twice.
func TestKernelPoolACKFollowsItsSync(t *testing.T) {
	t.Parallel()
	w := worldWithoutRelay(t, crowdOptions(60))
	c := newCrowd(t, w, 60, fewAddresses+10, 1)
	trace := w.traced(t, traceArgs...)
	require.NoError(t, w.StartAgent(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	many := c.guests()[:60]
	few, more := c.guests()[60:60+fewAddresses], c.guests()[60+fewAddresses:]
	twice := func(x *crowdClient) {
		c.renew(x)
		c.repeat(x)
	}
	require.NoError(t, c.let(ctx, c.discover, append(slices.Clone(many), few...)...))
	require.NoError(t, c.let(ctx, c.renew, many...))
	for _, x := range many[:10] { // alone: each has a write and a sync to itself
		require.NoError(t, c.let(ctx, c.renew, x))
	}
	require.NoError(t, c.let(ctx, c.discover, many[0]))
	require.NoError(t, c.let(ctx, c.discover, many[:10]...))
	require.NoError(t, c.let(ctx, twice, many[10:20]...))
	for _, x := range few[:len(more)] {
		c.release(x)
	}
	require.NoError(t, c.let(ctx, c.discover, more...)) // there are no other addresses
	for c.hear(100 * time.Millisecond) {                // what came twice
	}
	acks := len(many) + len(few) + len(many) + 10 + 1 + 10 + 10 + len(more)
	require.GreaterOrEqual(t, len(c.xids), acks)
	for _, x := range more {
		require.Len(t, c.holds[x.ip], 2, "an address is passed on")
	}
	require.Empty(t, c.faults)
	w.killTraced(t, trace)
	found, faults := syncedBefore(t, trace, c)
	require.GreaterOrEqual(t, found, acks+10)
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
	found, faults := syncedBefore(t, trace, c)
	require.Empty(t, faults)
	require.GreaterOrEqual(t, found, len(c.xids))
	w.Program = program
	require.NoError(t, w.StartAgent(t.Context()))
	pools, _ := c.check(t, w)
	t.Logf("%d syncs failed, %d ACKs of pools left, %d did not; %d leases of pools afterwards", failed, found, refused, pools)
	require.NoError(t, w.Agent.Signal(syscall.SIGTERM))
	<-w.Agent.Done()
}
