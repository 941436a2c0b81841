package access

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/usher-agent/usher/provision/provisiontest"
)

// Multicast is kept from interfaces that nobody is behind who may have it.
func TestInterfacesOfTheBlockedAlone(t *testing.T) {
	on := func(name, ip string) VLANBinding { return VLANBinding{name, provisiontest.Addr(ip)} }
	a := ACL{
		SetStopped: keys("192.0.2.1", "192.0.2.2", "192.0.2.9"), SetPaused: keys("192.0.2.3", "192.0.2.4"), SetGuests: keys("192.0.2.5"),
		SetBoundVLAN: SetBoundVLAN.Sorted(VLANBindings(
			on("one", "192.0.2.1"), on("two", "192.0.2.1"), on("two", "192.0.2.2"), on("paused", "192.0.2.3"), on("mixed", "192.0.2.2"), on("mixed", "192.0.2.4"),
			on("neighbour", "192.0.2.2"), on("neighbour", "192.0.2.7"), on("active", "192.0.2.8"), on("guest", "192.0.2.1"), on("guest", "192.0.2.5"))),
	}
	wiresOf(&a).put(&a)
	assert.Equal(t, []string{"one", "two"}, a.Strings(SetAloneStopped))
	assert.Equal(t, []string{"mixed", "paused"}, a.Strings(SetAlonePaused))
	assert.Zero(t, Want(nil, Inputs{GuardVLAN: []string{"one"}}).Counts()[SetAloneStopped], "nobody is behind it: it may be anybody's")
}
