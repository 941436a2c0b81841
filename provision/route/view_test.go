package route

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/lease"
)

func TestRouteRows(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	live := now.Add(time.Hour)
	a := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }
	k := newFakeRoutes()
	k.links = map[int]Link{7: {Index: 7, Name: "cust1", Up: true}, 8: {Index: 8, Name: "cust2"}, 9: {Index: 9, Name: "core", Up: true}}
	leases := &fakeRouteLeases{m: map[netip.Addr]lease.Record{
		a(1): record(a(1), "cust1", live),
		a(2): record(a(2), "cust1", live),
		a(3): record(a(3), "cust2", live),
		a(4): record(a(4), "cust9", live),
		a(5): record(a(5), "cust1", now.Add(-time.Second)),
		a(6): record(a(6), "core", live),
		a(8): record(a(8), "cust1", live),
	}}
	for _, r := range []Route{
		{Addr: a(1), Ifindex: 7, Table: 254, Metric: 5},
		{Addr: a(5), Ifindex: 7, Table: 254, Metric: 5},
		{Addr: a(7), Ifindex: 7, Table: 254, Metric: 5},
		{Addr: a(8), Ifindex: 77, Table: 254, Metric: 5}, // its interface is gone from the list, the client is elsewhere
	} {
		k.routes[r] = true
	}
	serves := func(name string) bool { return name != "core" }
	keeper := New(Options{Serves: serves, Table: 254, Metric: 5}, k, leases, nil, slog.New(slog.DiscardHandler))
	rows, err := keeper.Rows(t.Context(), now)
	require.NoError(t, err)
	row := func(n byte, iface string, state State, expires time.Time) Row {
		return Row{Addr: a(n), Interface: iface, Table: 254, Metric: 5, State: state, Expires: expires}
	}
	none := time.Time{}
	require.Equal(t, []Row{
		row(1, "cust1", Installed, live), row(2, "cust1", Missing, live), row(3, "cust2", Waiting, live), row(4, "cust9", Waiting, live),
		row(5, "cust1", Extra, none), row(7, "cust1", Unknown, none), row(8, "#77", Extra, none), row(8, "cust1", Missing, live),
	}, rows)
	require.Zero(t, k.applied)

	require.Equal(t, []Row{row(1, "cust1", Installed, none), row(8, "#77", Installed, none)},
		Rows([]Link{{Index: 7, Name: "cust1"}}, []Route{{Addr: a(8), Ifindex: 77, Table: 254, Metric: 5}, {Addr: a(1), Ifindex: 7, Table: 254, Metric: 5}}))
}
