package userside

import (
	"context"
	"time"
)

// BalanceChange is what ChangeBalance does.
type BalanceChange struct {
	Customer int64   // obligatory
	Amount   float64 // obligatory, not 0: money to add; negative: to take
	Comment  string  // obligatory: why
	Employee int64   // who; 0: not told; servers from 3.13.22 on
}

// ChangeBalance calls customer change_balance. It is never sent twice.
func (c *Client) ChangeBalance(ctx context.Context, change BalanceChange) error {
	if change.Amount == 0 {
		return c.argument(actBalance, "amount must not be 0")
	}
	return c.change(ctx, actBalance, arguments{}.id("customer_id", change.Customer).money("amount", change.Amount).
		text("comment", change.Comment).id("employee_id", change.Employee))
}

// BillingChange is what ChangeBilling does.
type BillingChange struct {
	Customer    int64  // obligatory
	Billing     int64  // obligatory
	BillingUser string // id of the customer in that billing; empty: not told; servers from 3.16.23 on
}

// ChangeBilling calls customer change_billing.
func (c *Client) ChangeBilling(ctx context.Context, change BillingChange) error {
	return c.change(ctx, actBilling, arguments{}.id("customer_id", change.Customer).id("billing_id", change.Billing).
		text("billing_user_id", change.BillingUser))
}

// ChangeTariff calls customer tarif_change. The id is that of the billing, so it may be no number.
func (c *Client) ChangeTariff(ctx context.Context, customer int64, tariff string) error {
	return c.change(ctx, actTariff, arguments{}.id("customer_id", customer).text("tarif", tariff))
}

// ServiceAddition is what AddService does.
type ServiceAddition struct {
	Customer int64    // obligatory
	Service  int64    // obligatory
	Price    *float64 // nil: the usual one
	Comment  string   // may be empty
}

// AddService calls customer service_add; servers from 3.18beta1 on.
func (c *Client) AddService(ctx context.Context, add ServiceAddition) error {
	return c.change(ctx, actServiceAdd, arguments{}.id("customer_id", add.Customer).id("service_id", add.Service).
		moneySet("price", add.Price).text("comment", add.Comment))
}

// RemoveService calls customer service_remove; servers from 3.18beta1 on.
func (c *Client) RemoveService(ctx context.Context, customer, service int64) error {
	return c.change(ctx, actServiceRemove, arguments{}.id("customer_id", customer).id("service_id", service))
}

// Movement is one row of a customer's account history. Its form differs between
// versions: Raw has the row as it came (API page section 3.1, abon_hist).
type Movement struct {
	ID       int64
	Type     String // Typer; type of old servers
	Time     time.Time
	Employee Int   // empoyee_id, the ERP's spelling; OperID of old servers
	Before   Float // balance before; old servers
	Amount   Float
	Order    String // PKO: number of the cash order; old servers
	Comment  String
	Billing  String // BillingDopData; old servers
	Raw      Map[any]
}

// CustomerHistory calls customer abon_hist: what happened to a customer's account.
func (c *Client) CustomerHistory(ctx context.Context, customer int64) (*List[Movement], error) {
	return readList(ctx, c, actHistory, arguments{}.id("customer_id", customer), func(r recordReader) (Movement, bool) {
		m := Movement{
			ID: r.id("Id", "id"), Type: r.string("Typer", "typer", "type", "Type"), Time: r.time("DateDo", "date_do", "date"),
			Employee: r.int("empoyee_id", "employee_id", "OperID", "operator_id"), Before: r.float("BalansBefore", "balance_before"),
			Amount: r.float("Amount", "amount"), Order: r.string("PKO", "pko"), Comment: r.string("Comment", "comment"),
			Billing: r.string("BillingDopData", "billing_dop_data"), Raw: objectOf(r.v),
		}
		return m, m.ID != 0 || !m.Time.IsZero() || m.Amount.Set || m.Type != "" || m.Comment != ""
	})
}

// AvailableTariff is one row of AvailableTariffs.
type AvailableTariff struct {
	ID   String
	Name String
	Raw  Map[any]
}

// AvailableTariffs calls customer list_tarif_available, which servers have until
// 3.13: to newer ones nothing is sent, and the error is ErrUnsupported.
func (c *Client) AvailableTariffs(ctx context.Context, customer int64) (*List[AvailableTariff], error) {
	return readList(ctx, c, actTariffList, arguments{}.id("customer_id", customer), func(r recordReader) (AvailableTariff, bool) {
		t := AvailableTariff{ID: r.string("id", "Id", "code"), Name: r.string("name", "Name", "nazv"), Raw: objectOf(r.v)}
		if t.ID == "" && isDecimal(r.v.key()) {
			t.ID = String(r.v.key())
		}
		return t, t.ID != ""
	})
}

// ActivityKind says where customers are counted as active.
type ActivityKind string

// The kinds of activity.
const (
	ActiveOnNetwork      ActivityKind = "net"
	ActiveOnInternet     ActivityKind = "internet"
	ActiveInPersonalArea ActivityKind = "personal_area"
)

// ActivityCounter calls customer get_activity_counter: how many customers are active.
func (c *Client) ActivityCounter(ctx context.Context, kind ActivityKind) (int64, error) {
	text, err := c.scalar(ctx, actActivity, arguments{}.text("type", string(kind)))
	if err != nil {
		return 0, err
	}
	n, ok := parseInt([]byte(text))
	if !ok {
		return 0, c.badScalar(actActivity, "a whole number")
	}
	return n, nil
}

// MaxAgreementNumber calls customer get_max_agreement_number: the highest number
// in use, of one billing or (0) of all. It may be no number at all; "": none.
func (c *Client) MaxAgreementNumber(ctx context.Context, billing int64) (String, error) {
	return c.scalar(ctx, actMaxAgreement, arguments{}.id("billing_id", billing))
}
