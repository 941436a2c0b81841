package erp

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
)

// What the ERP has for an address now is one call, for the cards of the customers that may have it.
func TestMACOf(t *testing.T) {
	e, c := newFakeERP(t, map[string]string{
		"customer.get_data?customer_id=7":   `200 {"result":"OK","data":{"id":7,"ip_mac":[{"ip":"100.64.0.1","mac":"00005e005301"},{"ip":"100.64.0.2"}]}}`,
		"customer.get_data?customer_id=7,8": `200 {"result":"OK","data":{"7":{"id":7},"8":{"id":8,"ip_mac":[{"ip":"100.64.0.1","mac":"00005e005301"}]}}}`,
		"customer.get_data?customer_id=9":   `500 x`,
	})
	f, _ := newFetcher(t, c, Options{})
	mac, err := f.MACOf(ctx, addr(1), 7)
	require.NoError(t, err)
	require.Equal(t, mac1, mac)
	mac, err = f.MACOf(ctx, addr(2), 7, 7, 0)
	require.NoError(t, err)
	require.Zero(t, mac, "it has none")
	mac, err = f.MACOf(ctx, addr(1), 7, 8)
	require.NoError(t, err)
	require.Equal(t, mac1, mac, "it passed to another customer")
	require.Len(t, e.calls(), 3)
	_, err = f.MACOf(ctx, addr(3), 7)
	require.ErrorIs(t, err, provision.ErrNoRow)
	_, err = f.MACOf(ctx, addr(1), 9)
	require.Error(t, err)
	_, err = f.MACOf(ctx, addr(1), provision.SubscriberID(0))
	require.ErrorIs(t, err, provision.ErrNoRow)
}
