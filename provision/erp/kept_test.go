package erp

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// Who is blocked in the snapshot in use, because what opened the customer was held or was read beside, is not kept blocked for a
// reason that nobody knows: what blocked was the list, and that no longer does.
func TestHeldOpeningIsNotKeptBlocked(t *testing.T) {
	const cards = "customer.get_data"
	policy := provision.DefaultPolicy()
	rules := func() map[string]string {
		out := with(good(), list2, ids(1, 4, 5, 6), list1, ids(2), list0, refused, cards, `403 {"error":"section"}`)
		delete(out, cards+"?customer_id=1,2,3")
		return out
	}
	paid := func(e *fakeERP) {
		e.set(list2, ids(1, 2, 4, 5, 6))
		e.set(list1, ids())
	}
	o := Options{Bindings: ModeDirect, Policy: &policy}

	t.Run("held by whole fetches", func(t *testing.T) {
		e, f, prev := primed(t, rules(), o)
		require.Equal(t, provision.StatePause, prev.State(2))
		paid(e)
		for range 3 { // the guard holds what they give
			require.Equal(t, "active", states(fetch(t, f, prev))[2])
		}
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.Equal(t, "active", words(got)[2])
	})
	t.Run("read by a poll beside a whole fetch", func(t *testing.T) {
		e, f, prev := primed(t, rules(), o)
		paid(e)
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.Equal(t, "active", words(got)[2])
		require.Equal(t, "active", states(fetch(t, f, prev))[2], "begun before the poll was in use")
		next := prev.WithStates(got.States)
		got, err = f.FetchStates(ctx, next)
		require.NoError(t, err)
		require.Equal(t, "active", words(got)[2])
	})
	t.Run("paid after what cards said was lost", func(t *testing.T) {
		e, f, prev := primed(t, rules(), o)
		f, _ = newFetcher(t, f.client, o)
		require.Equal(t, "pause", states(fetch(t, f, prev))[2], "the list says why")
		paid(e)
		got, err := f.FetchStates(ctx, prev)
		require.NoError(t, err)
		require.Equal(t, "active", words(got)[2])
		for range 2 {
			require.Equal(t, "active", states(fetch(t, f, prev))[2])
		}
	})
	t.Run("paid before what cards said was lost", func(t *testing.T) {
		e, f, prev := primed(t, rules(), o)
		paid(e)
		f, _ = newFetcher(t, f.client, o)
		for range 3 {
			require.Equal(t, "pause", states(fetch(t, f, prev))[2], "nothing tells why, and cards are refused")
			got, err := f.FetchStates(ctx, prev)
			require.NoError(t, err)
			require.Equal(t, "pause", words(got)[2])
		}
	})
}
