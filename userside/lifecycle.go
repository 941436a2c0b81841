package userside

import (
	"context"
	"net/http"
	"time"
)

// NewCustomer is what AddCustomer writes. Servers of 2026 want Billing and
// BillingCustomer unless Potential is set.
type NewCustomer struct {
	FullName        string
	Code            string // codeti: id in the billing, on older servers
	Potential       bool   // not yet a customer
	Corporate       bool   // legal entity; servers from 3.13.25 on
	Billing         int64  // 0: none
	BillingCustomer string // id in that billing; servers from 3.21 on
}

// AddCustomer calls customer add and gives the id of the new customer. If it is
// ErrUnknownShape, the customer was created and the answer did not tell the id.
func (c *Client) AddCustomer(ctx context.Context, n NewCustomer) (int64, error) {
	id, err := c.create(ctx, actAdd, arguments{}.text("fio", n.FullName).text("codeti", n.Code).flag("is_potential", n.Potential).
		flag("is_corporate", n.Corporate).id("billing_id", n.Billing).text("billing_customer_id", n.BillingCustomer))
	if err == nil && id == 0 {
		err = &c.fail(actAdd.row(), http.StatusOK, ErrUnknownShape, "created, but the answer has no id", nil).Error
	}
	return id, err
}

// create sends an action that answers the id of what it made, 0 when it does not.
func (c *Client) create(ctx context.Context, act action, args arguments) (int64, error) {
	var ids IDs
	to := sink{
		reset: func() { ids = nil },
		whole: func(v value) {
			if v.kind() == kindObject {
				v = v.first("id", "Id", "customer_id")
			}
			ids, _ = v.ids()
		},
	}
	a, err := c.call(ctx, act, args.values(), to)
	if err != nil {
		return 0, err
	}
	if len(a.ids) > 0 {
		return a.ids[0], nil
	}
	if len(ids) == 0 {
		ids, _ = listIDs(string(a.own()))
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return ids[0], nil
}

// CustomerEdit is what EditCustomer writes. Fields that are nil, or a zero time,
// stay as they are; an empty text or a 0 clears.
type CustomerEdit struct {
	FullName        *string
	Login           *string
	Account         *string // personal account
	AgreementNumber *string
	AgreementDate   time.Time
	Comment         *string
	Email           *string

	Mobile, HomePhone      *string
	Phone2, Phone3, Phone4 *string // newer servers

	HouseID     *int64
	Entrance    *string
	Floor       *string
	Apartment   *string
	Coordinates *string // "latitude,longitude"; newer servers

	Connected      time.Time
	Active         time.Time
	ActiveInternet time.Time

	Corporate *bool
	Potential *bool
	GroupID   *int64 // servers from 3.16dev3 on
	ManagerID *int64 // servers from 3.13.56 on
	ParentID  *int64
}

// EditCustomer calls customer edit; something must change. Of a customer that
// comes from a billing, the next import overwrites what was written.
func (c *Client) EditCustomer(ctx context.Context, customer int64, e CustomerEdit) error {
	loc := c.opts.Location
	args := arguments{}
	args.textSet("name", e.FullName).textSet("login", e.Login).textSet("account_number", e.Account)
	args.textSet("agreement_number", e.AgreementNumber).date("agreement_date", e.AgreementDate, loc)
	args.textSet("comment", e.Comment).textSet("email", e.Email)
	args.textSet("phone0", e.Mobile).textSet("phone1", e.HomePhone)
	args.textSet("phone2", e.Phone2).textSet("phone3", e.Phone3).textSet("phone4", e.Phone4)
	args.idSet("house_id", e.HouseID).textSet("entrance", e.Entrance).textSet("floor", e.Floor)
	args.textSet("apartment_number", e.Apartment).textSet("coordinates", e.Coordinates)
	args.date("date_connect", e.Connected, loc).dateTime("date_activity", e.Active, loc).dateTime("date_activity_inet", e.ActiveInternet, loc)
	args.flagSet("flag_corporate", e.Corporate).flagSet("is_potential", e.Potential)
	args.idSet("group_id", e.GroupID).idSet("manager_id", e.ManagerID).idSet("parent_id", e.ParentID)
	if len(args) == 0 {
		return c.argument(actEdit, "nothing to change")
	}
	return c.change(ctx, actEdit, args.id("id", customer))
}

// DeleteCustomer calls customer delete. It cannot be undone.
func (c *Client) DeleteCustomer(ctx context.Context, customer int64) error {
	return c.change(ctx, actDelete, arguments{}.id("id", customer))
}

// Merge is what MergeCustomers does.
type Merge struct {
	Into int64 // obligatory: receives the data
	From int64 // obligatory: its data is moved away
}

// MergeCustomers calls customer merge. It cannot be undone.
func (c *Client) MergeCustomers(ctx context.Context, m Merge) error {
	if m.Into == m.From && m.Into != 0 {
		return c.argument(actMerge, "a customer cannot be merged with itself")
	}
	return c.change(ctx, actMerge, arguments{}.id("dst_id", m.Into).id("src_id", m.From))
}

// MakeFormer calls customer to_ex: the customer is moved to the former ones.
func (c *Client) MakeFormer(ctx context.Context, customer int64) error {
	return c.change(ctx, actToFormer, arguments{}.id("customer_id", customer))
}

// MakeNormal calls customer to_normal: a former customer is taken back.
func (c *Client) MakeNormal(ctx context.Context, customer int64) error {
	return c.change(ctx, actToNormal, arguments{}.id("customer_id", customer))
}

// ChangeConnectDate calls customer change_date_connect. Only the date counts, in Options.Location.
func (c *Client) ChangeConnectDate(ctx context.Context, customer int64, day time.Time) error {
	return c.change(ctx, actConnectDate, arguments{}.id("customer_id", customer).date("value", day, c.opts.Location))
}

// PasswordChange is what ChangePassword does.
type PasswordChange struct {
	Customer int64  // obligatory
	New      string // obligatory
	Old      string // servers before 3.15.23 want it
}

// ChangePassword calls customer pass_change: the password of the personal area.
func (c *Client) ChangePassword(ctx context.Context, p PasswordChange) error {
	return c.change(ctx, actPassword, arguments{}.id("customer_id", p.Customer).text("pass_new", p.New).text("pass_old", p.Old))
}
