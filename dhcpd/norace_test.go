//go:build !race

package dhcpd

// raced tells that the race detector is on, under which sync.Pool forgets at random.
const raced = false
