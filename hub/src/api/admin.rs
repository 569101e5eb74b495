//! The admin routes of the hub.

use llm_config_proto::rest::admin::{
    AdminService, Answer, ChangeInfo, ChangedSubscription, EdgeInfo, Fleet, NewJoinToken, NewToken,
    RegionsInfo, ShownJoinToken, ShownToken, TenantInfo, TokenInfo,
};
use llm_config_proto::rest::service::Caller;
use llm_config_shared::entry::ChangeId;
use llm_config_shared::feed::Environments;
use llm_config_shared::name::{EdgeName, Environment, Tenant};
use llm_config_shared::store::{ChangeRow, Journal, Page, Paged};
use uuid::Uuid;

use super::Api;
use crate::registry::Registry;

impl<S: Journal + Registry> AdminService for Api<S> {
    async fn create_join_token(&self, caller: &Caller, token: NewJoinToken) -> Answer<ShownJoinToken> {
        self.add_join_token(caller, token).await
    }

    async fn tokens(&self, caller: &Caller) -> Answer<Vec<TokenInfo>> {
        self.all_tokens(caller).await
    }

    async fn create_token(&self, caller: &Caller, token: NewToken) -> Answer<ShownToken> {
        self.add_token(caller, token).await
    }

    async fn remove_token(&self, caller: &Caller, id: Uuid) -> Answer<()> {
        self.drop_token(caller, id).await
    }

    async fn tenants(&self, caller: &Caller) -> Answer<Vec<TenantInfo>> {
        self.all_tenants(caller).await
    }

    async fn create_tenant(&self, caller: &Caller, tenant: Tenant) -> Answer<TenantInfo> {
        self.add_tenant(caller, tenant).await
    }

    async fn regions(&self, caller: &Caller) -> Answer<RegionsInfo> {
        self.who_decides(caller).await
    }

    async fn environments(&self, caller: &Caller) -> Answer<Environments> {
        self.all_environments(caller).await
    }

    async fn set_environment(
        &self,
        caller: &Caller,
        environment: Environment,
        parent: Option<Environment>,
    ) -> Answer<Environments> {
        self.put_environment(caller, &environment, parent.as_ref()).await
    }

    async fn edges(&self, caller: &Caller) -> Answer<Vec<EdgeInfo>> {
        self.all_edges(caller).await
    }

    async fn edge(&self, caller: &Caller, name: EdgeName) -> Answer<EdgeInfo> {
        self.one_edge(caller, &name).await
    }

    async fn change_subscription(
        &self,
        caller: &Caller,
        name: EdgeName,
        changed: ChangedSubscription,
    ) -> Answer<EdgeInfo> {
        self.bind_edge(caller, &name, changed).await
    }

    async fn remove_edge(&self, caller: &Caller, name: EdgeName) -> Answer<()> {
        self.drop_edge(caller, &name).await
    }

    async fn fleet(&self, caller: &Caller) -> Answer<Fleet> {
        self.whole_fleet(caller).await
    }

    async fn changes(&self, caller: &Caller, page: Page) -> Answer<Paged<ChangeRow>> {
        self.all_changes(caller, page).await
    }

    async fn change(&self, caller: &Caller, id: ChangeId) -> Answer<ChangeInfo> {
        self.one_change(caller, id).await
    }
}
