package neighbour

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/lease"
)

// A MAC that was at an address before somebody wrote another one into the ERP undoes nothing of that, also when it comes back.
func TestARPUndoesNothingNewer(t *testing.T) {
	comesBack := func(w *neighbourWorld, last, mac byte) {
		w.see(last, mac, Gone)
		w.see(last, mac, Confirmed)
		w.wait(20 * time.Second)
	}
	changed := func(t *testing.T) *neighbourWorld {
		w := newNeighbourWorld(t)
		w.see(5, 5, Confirmed) // as the ERP has it
		w.wait(time.Minute)
		w.bind(5, 77)
		w.fetch()
		comesBack(w, 5, 5)
		require.Empty(t, w.told)
		require.Equal(t, 1, w.counts[Overruled])
		return w
	}
	bubble := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	bubble("until the new one appears there", func(t *testing.T) {
		w := changed(t)
		comesBack(w, 5, 77)
		require.Equal(t, 2, w.counts[Known])
		comesBack(w, 5, 5)
		require.Equal(t, []string{"198.51.100.5 is 00:00:5e:00:53:05 of 1005"}, w.told, "then it is a new router")
	})
	bubble("while it waits", func(t *testing.T) {
		w := newNeighbourWorld(t)
		w.see(5, 44, Confirmed)
		w.wait(5 * time.Second)
		w.bind(5, 77)
		w.fetch()
		w.wait(time.Minute)
		require.Empty(t, w.told)
		require.Equal(t, 1, w.counts[Overruled])
	})
	bubble("another one is news", func(t *testing.T) {
		w := changed(t)
		comesBack(w, 5, 44)
		require.Equal(t, []string{"198.51.100.5 is 00:00:5e:00:53:2c of 1005"}, w.told)
		w.bind(5, 44) // the ERP takes it
		w.wait(2 * reportAgain)
		w.fetch()
		comesBack(w, 5, 5)
		require.Len(t, w.told, 2, "and so is the first one after it")
	})
	bubble("who claims the address between changes nothing", func(t *testing.T) {
		w := changed(t)
		w.see(5, 44, Confirmed)
		w.wait(time.Second)
		w.see(5, 5, Confirmed)
		w.wait(time.Minute)
		require.Empty(t, w.told)
	})
	bubble("a client that came by DHCP since makes it news", func(t *testing.T) {
		w := changed(t)
		now := time.Now()
		w.leases.Store(lease.Record{IP: neighbourIP(5), MAC: macOf(77), Subscriber: 1005, State: lease.StateBound, Start: now, Renewed: now, Expires: now})
		comesBack(w, 5, 5)
		require.Len(t, w.told, 1)
	})
	bubble("what it had before is no word", func(t *testing.T) {
		w := newNeighbourWorld(t)
		w.bind(5, 77)
		w.fetch()
		w.see(5, 5, Confirmed)
		w.wait(time.Minute)
		require.Len(t, w.told, 1)
	})
	bubble("a stored snapshot is none either", func(t *testing.T) {
		w := newNeighbourWorld(t)
		w.see(5, 5, Confirmed)
		w.wait(time.Minute)
		w.bind(5, 77)
		w.fetched.Source = "stored"
		w.fetch()
		comesBack(w, 5, 5)
		require.Len(t, w.told, 1)
	})
}
