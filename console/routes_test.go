package console

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/route"
)

type fakeRoutes struct {
	rows []route.Row
	err  error
}

func (f fakeRoutes) Status() route.Status {
	return route.Status{Want: 2, DryRun: true}
}
func (f fakeRoutes) Rows(context.Context, time.Time) ([]route.Row, error) {
	return f.rows, f.err
}

func TestClientRoutes(t *testing.T) {
	w := newWorld(t)
	v, err := serveWorld(t, w).Routes(t.Context())
	require.NoError(t, err)
	require.True(t, v.Agent)
	require.False(t, v.Enabled)
	require.True(t, v.Equal())

	rows := []route.Row{
		{Addr: ip("198.51.100.11"), Interface: "eth1.101", Table: 254, State: route.Installed, Expires: testStart},
		{Addr: ip("198.51.100.12"), Interface: "eth1.102", Table: 254, State: route.Waiting},
	}
	w.Routes, w.RouteProtocol = fakeRoutes{rows: rows}, 207
	v, err = serveWorld(t, w).Routes(t.Context())
	require.NoError(t, err)
	require.True(t, v.Enabled && v.Equal() && v.Status.DryRun)
	require.EqualValues(t, 207, v.Protocol)
	require.Equal(t, rows, v.Routes)
	require.Equal(t, map[route.State]int{route.Installed: 1, route.Waiting: 1}, v.Counts)

	for _, s := range []route.State{route.Missing, route.Extra} {
		w.Routes = fakeRoutes{rows: []route.Row{{State: s}}}
		v, err = serveWorld(t, w).Routes(t.Context())
		require.NoError(t, err)
		require.False(t, v.Equal(), s)
	}
	w.Routes = fakeRoutes{err: errors.New("list routes: no memory")}
	_, err = serveWorld(t, w).Routes(t.Context())
	require.EqualError(t, err, "list routes: no memory")
}
