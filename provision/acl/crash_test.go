package acl_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/bench/long"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
)

// crashStates are two states that differ in every element, of several messages each.
func crashStates() [2]access.ACL {
	return [2]access.ACL{
		{access.SetStopped: access.Addrs(subscribers(0, 15_000)...), access.SetPaused: access.Addrs(subscribers(20_000, 5000)...), access.SetGarden: access.Prefixes(prefixesOf("192.0.2.0/24", "198.51.100.0/25")...)},
		{access.SetStopped: access.Addrs(subscribers(20_000, 5000)...), access.SetPaused: access.Addrs(subscribers(0, 15_000)...), access.SetGarden: access.Prefixes(prefixesOf("198.51.100.0/24")...), access.SetGuests: access.Addrs(subscribers(50_000, 3000)...)},
	}
}

// same compares by text: cmp needs a second for as many elements under the race detector.
func same(a, b access.ACL) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// TestHelperCrash is no test: TestKernelKilledInTheMiddleOfABatch runs it as
// another process, until it is killed.
func TestHelperCrash(t *testing.T) {
	if os.Getenv("USHER_TEST_CRASH") == "" {
		t.Skip("runs as a process of another test only")
	}
	table, err := acl.Open(t.Context(), acl.Options{})
	require.NoError(t, err)
	states := crashStates()
	fmt.Println("opened")
	for i := 0; ; i++ {
		apply(t, table, access.Plan(states[i%2], observe(t, table)))
	}
}

// Whenever the agent is killed, the kernel has the state before a batch or the
// one after it, and the next agent goes on from there.
func TestKernelKilledInTheMiddleOfABatch(t *testing.T) {
	t.Parallel()
	r := newRouter(t)
	states := crashStates()
	seen := [2]int{}
	for i := range long.Times(t, 4, 500) {
		cmd := exec.Command("ip", "netns", "exec", r.host.Namespace, os.Args[0], "-test.run=^TestHelperCrash$")
		cmd.Env = append(os.Environ(), "USHER_TEST_CRASH=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 8)) // it is open
		require.NoError(t, err)
		<-time.After(100*time.Millisecond + rand.N(150*time.Millisecond)) // a random moment, not a synchronisation
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()

		table := r.open()
		have := observe(t, table).Sorted()
		switch {
		case same(states[0], have):
			seen[0]++
		case same(states[1], have):
			seen[1]++
		default:
			require.Zero(t, have.Len(), "kill %d: %v, which is neither of the two states", i, have.Counts())
		}
		apply(t, table, access.Plan(states[i%2], have))
		if have = observe(t, table).Sorted(); !same(states[i%2], have) {
			t.Fatalf("kill %d (-want +have):\n%s", i, cmp.Diff(states[i%2], have, cmpACL))
		}
		require.NoError(t, table.Close())
	}
	t.Logf("found in one state %d times, in the other %d times", seen[0], seen[1])
	require.Positive(t, seen[0]+seen[1])
}

// Somebody edits our own table without a pause while we change it.
func TestKernelConcurrentEditorOfOurTable(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int)
	var edited atomic.Int64
	editor, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(r.namespace()))
	require.NoError(t, err)
	go func() {
		edits := 0
		tick := time.NewTicker(30 * time.Millisecond) // a reading takes as long on a busy machine
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			<-tick.C
			set := &nftables.Set{Table: &nftables.Table{Name: "usher", Family: nftables.TableFamilyINet}, Name: []string{"stopped", "paused"}[n%2], KeyType: nftables.TypeIPAddr}
			element := []nftables.SetElement{{Key: []byte{100, 64, 0, byte(n)}}}
			if n%3 == 0 {
				_ = editor.SetDeleteElements(set, element) // fails if it is gone
			} else {
				_ = editor.SetAddElements(set, element)
			}
			if editor.Flush() == nil {
				edits++
				edited.Add(1)
			}
		}
		_ = editor.CloseLasting()
		done <- edits
	}()
	rng := rand.New(rand.NewPCG(3, uint64(time.Now().UnixNano())))
	var want access.ACL
	failed := 0
	least, rounds := long.Times(t, 20, 3000), 0
	for ; rounds < least || edited.Load() <= 10 && rounds < 50*least; rounds++ { // on a quick machine 20 are over before the editor began
		want = access.ACL{
			access.SetStopped: access.Addrs(subscribers(rng.IntN(300), 100+rng.IntN(2000))...), access.SetPaused: access.Addrs(subscribers(256+rng.IntN(100), 100)...),
			access.SetGarden: access.Prefixes(netip.PrefixFrom(netip.MustParseAddr("192.0.2.0"), 24+rng.IntN(2))),
		}
		have, err := table.Observe(t.Context())
		if err == nil {
			err = table.Apply(t.Context(), access.Plan(want, have))
		}
		if err != nil {
			failed++ // given up after several attempts: the enforcer begins anew
		}
	}
	stop()
	edits := <-done
	t.Logf("%d foreign edits meanwhile, %d of %d batches were given up", edits, failed, rounds)
	require.Greater(t, edits, 10)
	require.Less(t, failed, rounds/2)
	apply(t, table, access.Plan(want, observe(t, table)))
	require.Empty(t, cmp.Diff(want, observe(t, table).Sorted(), cmpACL))
	require.False(t, changed(t, table))
}
