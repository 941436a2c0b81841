package show

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// tableDropper ends leases of a table.
type tableDropper struct{ *lease.Table }

func (d tableDropper) DropLease(ip netip.Addr, mac provision.MAC) (bool, error) {
	return d.Drop(ip, mac, time.Now()), nil
}

func TestLeasesDrop(t *testing.T) {
	a := netip.MustParseAddr("198.51.100.17")
	mac := provision.MAC{0, 0, 0x5e, 0, 0x53, 0x17}
	tab := lease.New()
	give := func() {
		tab.Store(lease.Record{IP: a, MAC: mac, Subscriber: 1001, State: lease.StateBound, Renewed: time.Now(), Expires: time.Now().Add(time.Hour)})
	}
	live := func() bool {
		rec, _ := tab.Get(a)
		return rec.Live(time.Now())
	}
	path := filepath.Join(t.TempDir(), "usher.sock")
	l, err := console.ListenUnix(path, "")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- console.ServeControl(ctx, l, console.NewControl(console.Deps{Leases: tab, Dropper: tableDropper{tab}}), door.New(door.Options{}), slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	drop := func(args ...string) (int, string, string) {
		return runCLI(t, append([]string{"leases", "drop", "--socket", path}, args...)...)
	}

	give()
	code, _, stderr := drop("198.51.100.17")
	assert.Equal(t, cli.ExitUsage, code)
	assert.Contains(t, stderr, "this is no terminal to ask on: say --yes")
	assert.True(t, live())
	for _, args := range [][]string{{}, {"here"}, {"2001:db8::1"}, {"198.51.100.17", "198.51.100.18"}} {
		code, _, _ = drop(args...)
		assert.Equal(t, cli.ExitUsage, code, args)
	}

	code, out, stderr := drop("198.51.100.17", "--yes")
	require.Equal(t, cli.ExitOK, code, stderr)
	assert.Equal(t, "ended: the lease of 198.51.100.17, that of 00:00:5e:00:53:17, customer 1001; its client is not told and is answered like anybody when it asks again\n", out)
	assert.False(t, live())
	code, _, stderr = drop("198.51.100.17", "--yes")
	assert.Equal(t, cli.ExitFailure, code)
	assert.Contains(t, stderr, "the lease of 198.51.100.17 is over already (00:00:5e:00:53:17, released at ")
	code, _, stderr = drop("198.51.100.17")
	assert.Equal(t, cli.ExitFailure, code, "there is nothing to ask about")
	assert.Contains(t, stderr, "is over already")
	code, _, stderr = drop("198.51.100.18", "--yes")
	assert.Equal(t, cli.ExitFailure, code)
	assert.Contains(t, stderr, "there is no lease of 198.51.100.18; usher explain 198.51.100.18 says what is known of it")

	give()
	code, out, stderr = drop("198.51.100.17", "--yes", "--output", "json")
	require.Equal(t, cli.ExitOK, code, stderr)
	var got console.LeaseDropped
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	assert.Equal(t, mac, got.Lease.MAC)
	assert.WithinDuration(t, time.Now(), got.Ended, time.Minute)

	code, _, stderr = runCLI(t, "leases", "drop", "198.51.100.17", "--yes", "--socket", path+".none")
	assert.Equal(t, cli.ExitFailure, code)
	assert.Contains(t, stderr, "no agent answers on "+path+".none: is `usher run` active")
	code, _, stderr = runCLI(t, "leases", "dorp")
	assert.Equal(t, cli.ExitUsage, code)
	assert.Contains(t, stderr, "did you mean drop?")
}
