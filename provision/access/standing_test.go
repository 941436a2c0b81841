package access

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
)

func TestStanding(t *testing.T) {
	active, paused, stopped, guest := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.100")
	in := provision.Input{
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}, {ID: 2, State: provision.StatePause}, {ID: 3, State: provision.StateStop}},
		Lines:       []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(active)}, {Subscriber: 2, Addresses: provision.Hosts4(paused)}, {Subscriber: 3, Addresses: provision.Hosts4(stopped)}},
		Subnets:     []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}
	for _, dry := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			snap, _ := provision.Build(in)
			k := newFakeKernel(ACL{})
			k.err = errors.New("no netlink")
			inputs := Inputs{GuestRanges: []AddrRange{{guest, guest}}}
			e := NewEnforcer(Options{DryRun: dry, Inputs: func() Inputs { return inputs }}, k, nil, func() *provision.Snapshot { return snap }, nil,
				slog.New(slog.NewTextHandler(io.Discard, nil)))
			want := func(a netip.Addr, set Set) {
				t.Helper()
				got, known := e.Standing(a)
				require.True(t, known)
				require.Equal(t, set, got)
			}
			_, known := e.Standing(paused)
			require.False(t, known)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- e.Run(ctx) }()
			synctest.Wait()
			if !dry {
				_, known = e.Standing(paused)
				require.False(t, known, "the kernel has not taken it")
			}
			k.do(func() { k.err = nil })
			require.NoError(t, e.Sync(ctx))
			want(active, 0)
			want(paused, SetPaused)
			want(stopped, SetStopped)
			want(guest, SetGuests)
			want(netip.MustParseAddr("2001:db8::1"), 0)
			require.Zero(t, testing.AllocsPerRun(100, func() { e.Standing(guest) }))

			snap = snap.WithStates(map[provision.SubscriberID]provision.State{2: provision.StateActive})
			require.NoError(t, e.Sync(ctx))
			want(paused, 0)
			cancel()
			require.NoError(t, <-done)
		})
	}
}
