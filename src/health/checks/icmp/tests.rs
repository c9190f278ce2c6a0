use super::*;

#[test]
fn what_may_not_be_opened_is_a_refusal() {
    for errno in [Errno::ACCESS, Errno::PERM, Errno::PROTONOSUPPORT] {
        assert!(is_not_permitted(&errno.into()), "{errno}");
    }
    assert!(!is_not_permitted(&Errno::MFILE.into()));
}
