//! For stores that do one thing in another way than the store that they are made of.

/// Writes those methods of a `Store` that hand their call on to the store in a field:
/// `hand_on!(store: load, touch);`. So an `impl` shows what the store of a test does itself.
#[macro_export]
macro_rules! hand_on {
    (@load $field:tt) => {
        async fn load(
            &self,
            key: &::sessions::StoreKey,
        ) -> Result<Option<::sessions::Record>, ::sessions::StoreError> {
            self.$field.load(key).await
        }
    };
    (@create $field:tt) => {
        async fn create(
            &self,
            key: &::sessions::StoreKey,
            record: &::sessions::Record,
        ) -> Result<::sessions::Created, ::sessions::StoreError> {
            self.$field.create(key, record).await
        }
    };
    (@replace $field:tt) => {
        async fn replace(
            &self,
            key: &::sessions::StoreKey,
            record: &::sessions::Record,
            based_on: u64,
        ) -> Result<::sessions::Replaced, ::sessions::StoreError> {
            self.$field.replace(key, record, based_on).await
        }
    };
    (@touch $field:tt) => {
        async fn touch(
            &self,
            key: &::sessions::StoreKey,
            expires_at: ::std::time::SystemTime,
        ) -> Result<(), ::sessions::StoreError> {
            self.$field.touch(key, expires_at).await
        }
    };
    (@delete $field:tt) => {
        async fn delete(
            &self,
            key: &::sessions::StoreKey,
        ) -> Result<bool, ::sessions::StoreError> {
            self.$field.delete(key).await
        }
    };
    ($field:tt: $($method:ident),+) => {
        $($crate::hand_on!(@$method $field);)+
    };
}
