package userside

import (
	"context"
	"net/netip"
	"strconv"
)

// IPAddition is what AddIP does.
type IPAddition struct {
	Customer int64      // obligatory
	IP       netip.Addr // obligatory; IPv4
	MAC      MAC        // zero: none; servers from 3.17.36 on
}

// AddIP calls customer ip_add: an address is given to a customer. API page section 3.2.
func (c *Client) AddIP(ctx context.Context, add IPAddition) error {
	return c.change(ctx, actIPAdd, arguments{}.id("customer_id", add.Customer).ip("value", add.IP).mac("mac", add.MAC))
}

// IPSelection says which entries DeleteIP takes away; the zero one is none.
type IPSelection struct{ word string }

// OneIP selects one address.
func OneIP(ip netip.Addr) IPSelection {
	if !ip.IsValid() {
		return IPSelection{}
	}
	return IPSelection{ip.String()}
}

// OnlyMACs selects the entries that have a MAC and no address.
func OnlyMACs() IPSelection { return IPSelection{"-1"} }

// AllIPs selects every address; servers from 3.19beta1 on.
func AllIPs() IPSelection { return IPSelection{"all"} }

// DeleteIP calls customer ip_delete. API page section 3.2.
func (c *Client) DeleteIP(ctx context.Context, customer int64, which IPSelection) error {
	return c.change(ctx, actIPDelete, arguments{}.id("customer_id", customer).text("value", which.word))
}

// AddSubnet calls customer ip_subnet_add: a subnet is given to a customer. The
// prefix must begin at its first address.
func (c *Client) AddSubnet(ctx context.Context, customer int64, subnet netip.Prefix) error {
	if subnet.IsValid() && subnet.Masked() != subnet {
		return c.argument(actSubnetAdd, "subnet does not begin at its first address")
	}
	args := arguments{}.id("customer_id", customer)
	if subnet.IsValid() {
		args.ip("ip", subnet.Addr()).text("subnet", strconv.Itoa(subnet.Bits()))
	}
	return c.change(ctx, actSubnetAdd, args)
}

// DeleteSubnet calls customer ip_subnet_delete: the subnet that begins at first
// is taken from a customer.
func (c *Client) DeleteSubnet(ctx context.Context, customer int64, first netip.Addr) error {
	return c.change(ctx, actSubnetDelete, arguments{}.id("customer_id", customer).ip("ip", first))
}
