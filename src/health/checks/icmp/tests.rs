use super::*;

#[test]
fn missing_privileges_and_protocols_are_not_permitted() {
    for errno in [Errno::ACCESS, Errno::PERM, Errno::PROTONOSUPPORT] {
        assert!(is_not_permitted(&errno.into()), "{errno}");
    }
    assert!(!is_not_permitted(&Errno::MFILE.into()));
}
