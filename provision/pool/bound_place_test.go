package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An address that the ERP binds is no client's of the pool, so it takes none of what a place may hold, until the ERP gives it up.
func TestBoundAddressIsAtNoPlace(t *testing.T) {
	p := testPool(t, 1, 4)
	until := testNow.Add(time.Hour)
	require.True(t, p.Lease(host(1), owner(1), testNow, until))
	p.SetPlace(host(1), 7)
	require.True(t, p.Lease(host(2), owner(2), testNow, until))
	p.SetPlace(host(2), 7)
	require.Equal(t, 2, p.At(7))

	p.Bind(host(1), true)
	assert.Equal(t, 1, p.At(7))
	p.Restore(host(1), owner(1), StateLeased, until) // the lease lives on
	p.SetPlace(host(1), 7)
	assert.Equal(t, 1, p.At(7))

	p.Bind(host(1), false)
	p.Restore(host(1), owner(1), StateLeased, until)
	p.SetPlace(host(1), 7)
	assert.Equal(t, 2, p.At(7))
}
