package userside

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// UserListFilter says whom UserList tells; the zero one everybody.
type UserListFilter struct {
	Customer      int64
	Billing       int64
	ByBillingUser bool // key the answer by the billing's ids; Customer.ID is taken from the row
	WithPotential bool
	WithParent    bool
	Commutation   bool  // is_load_commutation: WithRaw has what it adds
	Ready         int64 // timestamp_ready, passed on; 0: not sent
}

// UserList calls module get_user_list: every customer that is not deleted in one
// answer, shaped as get_data. Missing is not filled. API page section 5.3.
func (c *Client) UserList(ctx context.Context, filter UserListFilter) (*Customers, error) {
	out := &Customers{}
	args := arguments{}.id("customer_id", filter.Customer).id("billing_id", filter.Billing).
		flag("is_id_billing_user_id", filter.ByBillingUser).flag("is_with_potential", filter.WithPotential).
		flag("is_parent_id", filter.WithParent).flag("is_load_commutation", filter.Commutation).id("timestamp_ready", filter.Ready)
	a, err := c.call(ctx, actUserList, args.values(), sink{
		reset: func() { *out = Customers{} },
		member: func(key []byte, index int, v value) {
			at := &place{key: key, index: index}
			if v.kind() != kindObject {
				if !v.empty() {
					out.Defects.add(at.String(), v.kind().String()+" where a customer is wanted")
				}
				return
			}
			if filter.ByBillingUser {
				at.key = nil // not the id of a customer
			}
			c.readCustomer(out, v, at, nil)
		},
	})
	if err != nil {
		return nil, err
	}
	if len(out.Customers) == 0 && out.Defects.Count > 0 {
		return nil, c.unknownShape(actUserList, a, "no customer can be recognised")
	}
	return out, nil
}

// UserState is one state that a customer can have. Functional is work, nomoney,
// pause, disable or new (API page section 4).
type UserState struct {
	ID         int64
	Name       String
	Functional String
}

// UserStates calls module get_user_state_list. The ids are those of customers'
// states in the answers of the same module.
func (c *Client) UserStates(ctx context.Context) (*List[UserState], error) {
	return readList(ctx, c, actUserStates, arguments{}, func(r recordReader) (UserState, bool) {
		s := UserState{ID: r.idOrKey("id"), Name: r.string("name"), Functional: r.string("functional")}
		return s, s.Name != "" || s.Functional != ""
	})
}

// Connection is one end of a connection and what is on the other.
type Connection struct {
	ObjectType string
	ObjectID   int64
	Direction  int64
	Interface  String // port
	Far        Link
}

// ConnectionFilter says of which object; the zero one of all.
type ConnectionFilter struct {
	ObjectType string // customer, switch or other; empty: all
	ObjectID   int64
}

// Connections calls module get_connect_list, which nests type, object,
// direction and interface. API page section 5.3.
func (c *Client) Connections(ctx context.Context, filter ConnectionFilter) (*List[Connection], error) {
	out := &List[Connection]{}
	args := arguments{}.text("object_type", filter.ObjectType).id("object_id", filter.ObjectID)
	a, err := c.call(ctx, actConnections, args.values(), sink{
		reset: func() { *out = List[Connection]{} },
		member: func(key []byte, index int, objects value) {
			at := &place{key: key, index: index}
			for object := range objects.all {
				for direction := range object.all {
					for port := range direction.all {
						readConnections(out, string(key), object, direction, port, at)
					}
				}
			}
		},
	})
	if err != nil {
		return nil, err
	}
	if len(out.Rows) == 0 && out.Defects.Count > 0 {
		return nil, c.unknownShape(actConnections, a, "no connection can be recognised")
	}
	return out, nil
}

func readConnections(out *List[Connection], objectType string, object, direction, port value, at *place) {
	id, known := parseInt(object.key())
	from, _ := parseInt(direction.key())
	for m := range port.all {
		far, err := m.get("id").int()
		if m.kind() != kindObject || !known || err != nil || !far.Set {
			out.Defects.add(at.String(), "connection that is not understood")
			continue
		}
		to, _ := m.get("direction").int()
		number, err := m.get("interface").int()
		l := Link{ObjectType: m.get("type").text(), ObjectID: far.Value, Direction: to.Value}
		switch {
		case err != nil:
			l.PortName = String(m.get("interface").text()).Text()
		case number.Value > 0 && number.Value <= 1<<31:
			l.Port = uint32(number.Value)
		}
		out.Rows = append(out.Rows, Connection{ObjectType: objectType, ObjectID: id, Direction: from, Interface: String(port.key()), Far: l})
	}
}

// ModuleDevice is one device as the universal interface tells it, without the
// SNMP communities, which are dropped.
type ModuleDevice struct {
	ID       int64
	Type     Int
	Model    Int
	IP       netip.Addr
	MAC      MAC
	HouseID  int64
	NodeID   int64
	Entrance String
	Location String
	Comment  String
	Active   time.Time
	Created  time.Time
	Software String
}

// ModuleDevices calls module get_device_list. kind is switch, radio, other or
// empty for all. API page section 5.3.
func (c *Client) ModuleDevices(ctx context.Context, kind string) (*List[ModuleDevice], error) {
	return readList(ctx, c, actModuleDevices, arguments{}.text("device_type", kind), func(r recordReader) (ModuleDevice, bool) {
		d := ModuleDevice{
			ID: r.idOrKey("id"), Type: r.int("type_id"), Model: r.int("model_id"), IP: field1(r, value.ip, "ip"), MAC: r.mac("mac"),
			HouseID: r.id("house_id"), NodeID: r.id("node_id"), Entrance: r.string("entrance"), Location: r.string("location"),
			Comment: r.string("comment"), Active: r.time("date_activity"), Created: r.time("date_create"), Software: r.string("software_version"),
		}
		return d, d.ID > 0
	})
}

// ModuleTariff is one tariff as the universal interface tells it.
type ModuleTariff struct {
	ID       String
	Name     String
	Payment  Float // money for one Interval
	Interval String
	Down, Up Float // speed, in the unit of the installation
	Service  String
}

// ModuleTariffs calls module get_tariff_list. API page section 5.3.
func (c *Client) ModuleTariffs(ctx context.Context) (*List[ModuleTariff], error) {
	return readList(ctx, c, actModuleTariffs, arguments{}, func(r recordReader) (ModuleTariff, bool) {
		t := ModuleTariff{ID: r.string("id"), Name: r.string("name"), Payment: r.float("payment"),
			Interval: r.string("payment_interval"), Service: r.string("service_type")}
		if t.ID == "" && r.at != nil {
			t.ID = String(r.at.key)
		}
		if speed := r.v.get("speed"); speed.kind() == kindObject {
			s := r.in(speed, "speed", 0)
			t.Down, t.Up = s.float("down"), s.float("up")
		}
		return t, t.ID != ""
	})
}

// ModuleInfo is what the probe calls of the universal interface say. Their form
// is not documented, so all of it is given as it came.
type ModuleInfo struct {
	Version String // version; may be empty
	Members Map[any]
}

// SystemInformation calls module get_system_information. API page section 5.3.
func (c *Client) SystemInformation(ctx context.Context) (*ModuleInfo, error) {
	return c.moduleInfo(ctx, actSystemInformation)
}

// APIInformation calls module get_api_information. API page section 5.3.
func (c *Client) APIInformation(ctx context.Context) (*ModuleInfo, error) {
	return c.moduleInfo(ctx, actAPIInformation)
}

func (c *Client) moduleInfo(ctx context.Context, act action) (*ModuleInfo, error) {
	out := &ModuleInfo{}
	_, err := c.call(ctx, act, nil, sink{
		reset: func() { *out = ModuleInfo{} },
		member: func(key []byte, _ int, v value) {
			out.Members = append(out.Members, Entry[any]{Key: string(key), Value: toAny(v)})
			if name := string(key); (name == "erp_version" || name == "version") && !v.composite() {
				out.Version = String(v.text())
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// SupportedMethods calls module get_supported_method_list: the names of the
// requests that the universal interface answers, sorted. API page section 5.3.
func (c *Client) SupportedMethods(ctx context.Context) ([]string, error) {
	var out []string
	a, err := c.call(ctx, actSupportedMethods, nil, sink{
		reset: func() { out = nil },
		member: func(key []byte, _ int, v value) {
			name := v
			if v.kind() == kindObject {
				name = v.first("name", "method", "request")
			}
			switch {
			case name.kind() == kindString && !name.empty():
				out = append(out, name.text())
			case len(key) > 0 && !isDecimal(key):
				out = append(out, string(key)) // keyed by name
			}
		},
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 && a.payload {
		return nil, c.unknownShape(actSupportedMethods, a, "no method can be recognised")
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// TariffRow is one tariff of the ERP (API page section 5.5). Customer.Tariffs
// names tariffs by the billing's id.
type TariffRow struct {
	ID          int64
	Name        String
	Amount      Float
	BillingID   Int
	BillingUUID String // billing_uuid, else billing_ext_id
	GroupID     int64
	Service     String
}

// Tariffs calls tariff get.
func (c *Client) Tariffs(ctx context.Context) (*List[TariffRow], error) {
	return readList(ctx, c, actTariffs, arguments{}, func(r recordReader) (TariffRow, bool) {
		t := TariffRow{ID: r.idOrKey("id"), Name: r.string("name"), Amount: r.float("amount"), BillingID: r.int("billing_id"),
			BillingUUID: r.string("billing_uuid", "billing_ext_id"), GroupID: r.id("tariff_group_id"), Service: r.string("service_type")}
		return t, t.ID > 0
	})
}
